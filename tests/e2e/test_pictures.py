"""A visitor's own pictures in a real browser: named, dropped, trained on, and hidden from other visitors."""

from image_sets import draw_arrows, png


def test_own_pictures(app, new_page, visitor_page, tmp_path, screenshots):
    """Two classes of arrows are trained on, unmirrored; they are there after a reload, and not for another visitor."""
    pictures, labels = draw_arrows(60, seed=0)
    files = []
    for number, picture in enumerate(pictures):
        files.append(tmp_path / f"{number}.png")
        files[-1].write_bytes(png(picture.permute(2, 0, 1).contiguous()))
    new_page.goto(app.url)
    new_page.wait_for_selector("#note >> text=Training on")
    new_page.click("#pictures-choice input")
    new_page.get_by_role("option", name="Your own pictures").click()
    for label, name in enumerate(("left", "right")):
        new_page.fill("#class-name textarea, #class-name input", name)
        own = [file for file, one in zip(files, labels.tolist(), strict=True) if one == label]
        new_page.set_input_files("#class-files input[type=file]", own)
        new_page.wait_for_selector(f"#pictures-about figcaption >> text={name} 30")
    new_page.wait_for_selector("#pictures-about >> text=flip is off")
    new_page.wait_for_selector("#note >> text=Training on your own pictures, 54 training and 6 test images.")
    new_page.screenshot(path=screenshots / "pictures.png", full_page=True)
    new_page.click("#train")
    new_page.wait_for_selector("#status >> text=Done", timeout=60_000)
    new_page.reload()
    new_page.wait_for_selector("#pictures-about figcaption >> text=right 30")
    with visitor_page() as other:
        other.goto(app.url)
        other.wait_for_selector("#note >> text=Training on drawn shapes")
        assert other.locator("#pictures-about figcaption").count() == 0
    new_page.click("#delete-pictures")
    new_page.wait_for_selector("#note >> text=Training on drawn shapes")
