"""A visitor's own pictures in a real browser: dropped, recorded, trained on, and hidden from other visitors."""

from image_sets import draw_arrows, png


def choose_own(page, folder, num):
    """Adds `num` drawn arrows each that point left and right to a visitor's own pictures, which become their choice."""
    page.wait_for_selector("#train:enabled")  # the visitor has a key
    page.click("#pictures-choice input")
    page.get_by_role("option", name="Your own pictures").click()
    pictures, labels = draw_arrows(2 * num, seed=0)
    for label, name in enumerate(("left", "right")):
        files = []
        for number, picture in enumerate(pictures[labels == label]):
            files.append(folder / f"{name}-{number}.png")
            files[-1].write_bytes(png(picture.permute(2, 0, 1).contiguous()))
        page.fill("#class-name textarea, #class-name input", name)
        page.set_input_files("#class-files input[type=file]", files)
        page.wait_for_selector(f"#pictures-about figcaption >> text={name} {num}")


def test_own_pictures(app, new_page, visitor_page, tmp_path, screenshots):
    """Two classes of arrows are trained on, unmirrored, with one that the webcam recorded.

    They are there after a reload, and not for another visitor.
    """
    new_page.goto(app.url)
    new_page.wait_for_selector("#note >> text=Training on")
    choose_own(new_page, tmp_path, 30)
    new_page.wait_for_selector("#pictures-about >> text=flip is off")
    new_page.wait_for_selector("#note >> text=Training on your own pictures, 54 training and 6 test images.")
    new_page.click("#class-webcam .turn")
    new_page.wait_for_selector("#class-webcam .hold:visible")
    new_page.fill("#class-name textarea, #class-name input", "")
    new_page.locator("#class-webcam .hold").press("Enter")
    new_page.wait_for_selector("#class-webcam >> text=Name the class first.")
    new_page.fill("#class-name textarea, #class-name input", "test picture")
    new_page.hover("#class-webcam .hold")
    new_page.mouse.down()
    new_page.wait_for_function("Number(document.querySelector('#class-webcam .note').textContent) >= 12")
    new_page.mouse.up()
    new_page.wait_for_selector("#pictures-about figcaption >> text=/test picture [1-9][0-9]/")
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
