"""The panel that shows settings as a script of plain PyTorch."""

import gradio as gr

from ui.i18n.words import i18n


def code_panel(name: str) -> tuple[gr.Button, gr.Code]:
    """A panel for a script of plain PyTorch, and the button that writes it."""
    with gr.Accordion(i18n("As PyTorch code"), open=False, elem_id=f"{name}-panel"):
        button = gr.Button(i18n("Write the script"), size="sm", elem_id=f"show-{name}")
        script = gr.Code(language="python", show_label=False, elem_id=name, max_lines=40)
    return button, script
