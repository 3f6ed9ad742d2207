"""The theme of the page: colours, type, spacing and radius, and the font, which the app itself serves."""

from pathlib import Path

from gradio.themes import Base, Color, Font, Size

from trainer.palette import TRAIN

STYLE = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
FONT = Path(__file__).parent / "inter.woff2"

# Blue like the first curve of the charts; 600 and darker have a contrast of 6:1 or more with white.
_BLUE = Color(
    name="blue", c50="#eef3ff", c100="#dfe8ff", c200="#c3d3fe", c300="#9bb6fc", c400="#7d9cf8", c500=TRAIN,
    c600="#2650cc", c700="#2041a6", c800="#1d3883", c900="#1b3168", c950="#131f44",
)  # fmt: skip
_GREY = Color(
    name="grey", c50="#f6f7fa", c100="#edeff4", c200="#dde1ea", c300="#c3c9d6", c400="#9aa3b5", c500="#687186",
    c600="#4d566a", c700="#3a4254", c800="#252c3b", c900="#121723", c950="#0d121b",
)  # fmt: skip
_SPACING = Size(xxs="1px", xs="2px", sm="4px", md="6px", lg="8px", xl="10px", xxl="14px")
_RADIUS = Size(xxs="2px", xs="4px", sm="6px", md="8px", lg="10px", xl="14px", xxl="20px")
_TEXT = Size(xxs="10px", xs="12px", sm="13px", md="14px", lg="16px", xl="20px", xxl="26px")


class _OwnFont(Font):
    """Inter, a variable font with all weights, which the app serves itself."""

    def stylesheet(self) -> dict[str, str | None]:
        """Returns the rule that loads the font; its address is relative to that of the theme."""
        source = f"url('gradio_api/file={FONT.as_posix()}') format('woff2')"
        face = f"font-family: '{self.name}'; font-weight: 100 900; font-display: swap; src: {source};"
        return {"url": None, "css": f"@font-face {{ {face} }}"}


def build_theme() -> Base:
    """Returns the theme; `FONT` must be among Gradio's static paths."""
    theme = Base(
        primary_hue=_BLUE,
        secondary_hue=_BLUE,
        neutral_hue=_GREY,
        spacing_size=_SPACING,
        radius_size=_RADIUS,
        text_size=_TEXT,
        font=(
            _OwnFont("Inter Lab"),
            *("system-ui", "PingFang SC", "Microsoft YaHei", "Noto Sans SC", "Noto Sans CJK SC", "sans-serif"),
        ),
        font_mono=("ui-monospace", "Cascadia Mono", "Consolas", "Menlo", "DejaVu Sans Mono", "monospace"),
    )
    return theme.set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color="#1b2130",
        body_text_color_dark="#e8ebf2",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="#a9b1c2",
        background_fill_primary="white",
        background_fill_primary_dark="*neutral_900",
        background_fill_secondary="*neutral_50",
        background_fill_secondary_dark="*neutral_950",
        border_color_primary="*neutral_200",
        border_color_primary_dark="#2b3345",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_title_text_color="*body_text_color",
        block_title_text_color_dark="*body_text_color",
        block_title_text_size="*text_sm",
        block_title_text_weight="500",
        block_label_text_color="*body_text_color_subdued",
        block_label_text_color_dark="*body_text_color_subdued",
        block_info_text_size="*text_xs",
        block_radius="*radius_lg",
        container_radius="*radius_lg",
        input_background_fill="white",
        input_background_fill_dark="*neutral_950",
        input_border_color="*neutral_300",
        input_border_color_dark="*neutral_700",
        input_border_color_focus="*primary_500",
        input_border_color_focus_dark="*primary_400",
        input_border_width="1px",
        input_shadow_focus="0 0 0 3px *primary_100",
        input_shadow_focus_dark="0 0 0 3px *primary_900",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        input_radius="*radius_md",
        checkbox_border_color="*neutral_500",
        checkbox_border_color_dark="*neutral_500",
        slider_color="*primary_500",
        slider_color_dark="*primary_400",
        color_accent="*primary_600",
        link_text_color="*primary_600",
        link_text_color_dark="*primary_300",
        link_text_color_hover="*primary_700",
        link_text_color_hover_dark="*primary_200",
        link_text_color_visited="*primary_600",
        link_text_color_visited_dark="*primary_300",
        button_large_radius="*radius_md",
        button_small_radius="*radius_md",
        button_medium_radius="*radius_md",
        button_large_text_weight="600",
        button_medium_text_weight="500",
        button_small_text_weight="500",
        button_border_width="1px",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_hover_dark="*primary_500",
        button_primary_border_color="*primary_600",
        button_primary_border_color_dark="*primary_600",
        button_primary_text_color="white",
        button_secondary_background_fill="white",
        button_secondary_background_fill_dark="*neutral_800",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_hover_dark="*neutral_700",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="*neutral_700",
        button_secondary_text_color="*body_text_color",
        button_secondary_text_color_dark="*body_text_color",
    )
