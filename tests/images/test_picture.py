"""Decoding pictures, compared with Pillow; forged, truncated and other files; resizing."""

import io
import random
import struct
import time
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms.v2 import functional as F  # noqa: N812

from trainer.images import picture
from trainer.images.picture import RESIZES, fit, read_picture

HEIGHT, WIDTH = 37, 53
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def smooth(channels: int, seed: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (5, 7, channels), dtype=np.uint8)
    bands = [Image.fromarray(np.ascontiguousarray(small[..., i])).resize(size) for i in range(channels)]
    return bands[0] if channels == 1 else Image.merge({3: "RGB", 4: "RGBA"}[channels], bands)


def saved(image: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(samples: np.ndarray, depth: int, colour: int, interlaced: bool = False, extra: bytes = b"") -> bytes:
    """A PNG of samples [height, width, channels], in any colour type and bit depth; Pillow cannot write all of them."""

    def rows(part: np.ndarray) -> bytes:
        if depth >= 8:
            return b"".join(b"\0" + row.astype(f">u{depth // 8}").tobytes() for row in part if row.size)
        bits = (part[..., 0, None] >> np.arange(depth)[::-1]) & 1
        packed = [np.packbits(row.ravel().astype(np.uint8)).tobytes() for row in bits if row.size]
        return b"".join(b"\0" + row for row in packed)

    height, width, _ = samples.shape
    parts = [samples[y::dy, x::dx] for x, y, dx, dy in ADAM7] if interlaced else [samples]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    data = zlib.compress(b"".join(rows(part) for part in parts))
    return PNG_SIGNATURE + chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def gif(image: Image.Image, screen: tuple, at: tuple, clear: int | None = None, own: bool = False) -> bytes:
    """A GIF with one image at any position of its screen, with the global colour table or its own."""
    whole = saved(image, "GIF", interlace=0)
    size = whole[10] & 7
    table = whole[13 : 13 + 3 * 2 ** (size + 1)]
    start = whole.index(struct.pack("<B4H", 0x2C, 0, 0, *image.size))
    control = b"" if clear is None else b"\x21\xf9\x04\x01\0\0" + bytes([clear]) + b"\0"
    return (
        whole[:6]
        + struct.pack("<2HBBB", *screen, 0x80 | size, 0, 0)
        + (table[::-1] if own else table)
        + control
        + struct.pack("<B4HB", 0x2C, *at, *image.size, 0x80 | size if own else 0)
        + (table if own else b"")
        + whole[start + 10 :]
    )


def webp(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"WEBP" + b"".join(struct.pack("<4sI", kind, len(part)) + part for kind, part in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


RGB, RGBA, GREY = smooth(3), smooth(4), smooth(1)
FRAMES = {"save_all": True, "append_images": [smooth(4, seed) for seed in (1, 2)]}
SMALL = Image.new("RGBA", (WIDTH, HEIGHT))
SMALL.paste(smooth(4, 3, (20, 10)), (8, 6))
PALETTE = RGB.quantize(16)
JPEG, PNG, WEBP, GIF = (saved(RGB, format) for format in ("JPEG", "PNG", "WEBP", "GIF"))
CMYK = saved(RGB.convert("CMYK"), "JPEG")
ADOBE = CMYK.index(b"\xff\xee")

FILES = {
    "jpeg": JPEG,
    "jpeg, grey": saved(GREY, "JPEG"),
    "jpeg, 4:4:4": saved(RGB, "JPEG", subsampling=0),
    "jpeg, 4:2:2": saved(RGB, "JPEG", subsampling=1),
    "jpeg, progressive": saved(RGB, "JPEG", progressive=True),
    "jpeg, grey, progressive": saved(GREY, "JPEG", progressive=True),
    "jpeg, RGB inside": saved(RGB, "JPEG", keep_rgb=True, subsampling=0),
    "jpeg, restarts": saved(RGB, "JPEG", restart_marker_blocks=1),
    "jpeg, CMYK": CMYK,
    "jpeg, CMYK, progressive": saved(RGB.convert("CMYK"), "JPEG", progressive=True),
    "jpeg, YCCK": CMYK[: ADOBE + 15] + b"\x02" + CMYK[ADOBE + 16 :],
    "jpeg, CMYK without Adobe's segment": CMYK[:ADOBE] + CMYK[ADOBE + 16 :],
    "jpeg, profile before EXIF": saved(RGB, "JPEG", icc_profile=bytes(70_000), exif=turned(6)),
    "jpeg, bytes after its end": JPEG + b"\0\1motion" * 99 + JPEG,
    "jpeg, two pictures": saved(RGB, "MPO", save_all=True, append_images=[GREY.convert("RGB")]),
    "png": PNG,
    "png, RGBA": saved(RGBA, "PNG"),
    "png, grey and alpha": saved(RGBA.convert("LA"), "PNG"),
    "png, palette": saved(PALETTE, "PNG"),
    "png, palette with one clear colour": saved(PALETTE, "PNG", transparency=3),
    "png, palette with alphas": saved(PALETTE, "PNG", transparency=bytes(range(0, 256, 17))),
    "png, 1 bit": saved(GREY.convert("1"), "PNG"),
    "png, animated": saved(RGBA, "PNG", **FRAMES),
    "webp, lossy": WEBP,
    "webp, lossy, RGBA": saved(RGBA, "WEBP"),
    "webp, lossy, poor alpha": saved(RGBA, "WEBP", alpha_quality=20),
    "webp, lossless": saved(RGB, "WEBP", lossless=True),
    "webp, lossless, RGBA": saved(RGBA, "WEBP", lossless=True),
    "webp, animated": saved(RGBA, "WEBP", **FRAMES),
    "webp, animated, lossless": saved(RGBA, "WEBP", lossless=True, **FRAMES),
    "webp, animated, small first frame": saved(SMALL, "WEBP", **FRAMES),
    "webp, animated, turned": saved(RGBA, "WEBP", exif=turned(8), **FRAMES),
    "gif": GIF,
    "gif, interlaced": saved(RGB, "GIF", interlace=1),
    "gif, grey": saved(GREY, "GIF"),
    "gif, 1 bit": saved(GREY.convert("1"), "GIF"),
    "gif, transparent": saved(RGBA, "GIF"),
    "gif, animated": saved(RGBA, "GIF", **FRAMES),
    "gif, small image": gif(PALETTE, (WIDTH + 20, HEIGHT + 9), (5, 3)),
    "gif, small image, clear colour": gif(PALETTE, (WIDTH + 20, HEIGHT + 9), (5, 3), clear=3),
    "gif, small image, its own colours": gif(PALETTE, (WIDTH + 20, HEIGHT + 9), (5, 3), clear=2, own=True),
    "gif, image beyond its screen": gif(PALETTE, (20, 9), (5, 3)),
}
for format in ("JPEG", "PNG", "WEBP"):
    for orientation in range(1, 9):
        FILES[f"{format.lower()}, orientation {orientation}"] = saved(RGB, format, exif=turned(orientation))


@pytest.fixture
def read(tmp_path):
    """A function that calls read_picture on bytes, in a file whose name does not reveal the format."""

    def read(data: bytes) -> torch.Tensor:
        path = tmp_path / "upload.tmp"
        path.write_bytes(data)
        return read_picture(path)

    return read


def over_white(samples: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return np.rint(255 + (samples.astype(float) - 255) * alpha[..., None] / 255)


def assert_same(mine: torch.Tensor, reference: np.ndarray, within: int = 0) -> None:
    assert mine.dtype == torch.uint8
    assert mine.is_contiguous()
    assert mine.shape == (3, *reference.shape[:2])
    difference = mine.permute(1, 2, 0).numpy().astype(int) - reference
    assert np.abs(difference).max() <= within


@pytest.mark.parametrize("name", FILES)
def test_reads_what_pillow_reads(read, name):
    """Pixels, size, orientation and transparency over white agree to 1 level: rounding and JPEG decoders differ."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(FILES[name])))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    assert_same(read(FILES[name]), np.asarray(image.convert("RGB")), within=1)


PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
PNG_KINDS = [(colour, depth) for colour, depths in PNG_DEPTHS.items() for depth in depths]


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("colour", "depth"), PNG_KINDS)
def test_png_of_every_kind(read, colour, depth, interlaced):
    """The PNG specification's 15 kinds, plain and interlaced, with transparency, compared with its formulas."""
    chance = np.random.default_rng(0)
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    samples = chance.integers(0, 2**depth, (HEIGHT, WIDTH, channels))
    levels = np.rint(samples * 255 / (2**depth - 1)).astype(np.uint8)
    extra, alpha = b"", np.full((HEIGHT, WIDTH), 255)
    if colour == 3:
        table = chance.integers(0, 256, (2**depth, 3), dtype=np.uint8)
        alphas = chance.integers(0, 256, 2**depth, dtype=np.uint8)
        alphas[2 ** (depth - 1) :] = 255  # tRNS may be shorter than the table
        extra = chunk(b"PLTE", table.tobytes()) + chunk(b"tRNS", alphas[: 2 ** (depth - 1)].tobytes())
        levels, alpha = table[samples[..., 0]], alphas[samples[..., 0]]
    elif colour in (0, 2):
        extra = chunk(b"tRNS", samples[3, 4].astype(">u2").tobytes())
        alpha = np.where((samples == samples[3, 4]).all(-1), 0, 255)
    else:
        levels, alpha = levels[..., :-1], levels[..., -1]
    levels = np.broadcast_to(levels, (HEIGHT, WIDTH, 3))
    assert_same(read(png(samples, depth, colour, interlaced, extra)), over_white(levels, alpha))


def test_16_bit_levels_are_rounded(read):
    """Each of the 65,536 levels becomes the nearest of the 256."""
    levels = np.arange(65536).reshape(256, 256, 1)
    assert_same(read(png(levels, 16, 0)), np.rint(levels / 257).repeat(3, -1))


def test_gif_index_beyond_its_colours(read):
    """Indices beyond a colour table of 2 become greys, not the memory behind the table."""
    levels = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    whole = saved(levels, "GIF", optimize=False, interlace=0)
    start = 13 + 3 * 256
    short = whole[:10] + b"\x80" + whole[11:13] + b"\x09\x08\x07\x06\x05\x04" + whole[start:]
    values = read(short).permute(1, 2, 0).reshape(256, 3).tolist()
    assert values == [[9, 8, 7], [6, 5, 4]] + [[level] * 3 for level in range(2, 256)]


@pytest.mark.parametrize("exif", [b"", b"II*", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff"])
def test_damaged_exif(read, exif):
    """If the EXIF block cannot be read, the picture is decoded without its orientation."""
    start = PNG.index(b"IDAT") - 4
    assert torch.equal(read(PNG[:start] + chunk(b"eXIf", exif) + PNG[start:]), read(PNG))


def test_exif_of_motorola_order(read):
    """A big-endian EXIF block between two other APP1 blocks."""
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    other = b"http://ns.adobe.com/xap/1.0/\0<x/>"
    blocks = (other, b"Exif\0\0" + exif, other)
    app1 = b"".join(b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block for block in blocks)
    assert torch.equal(read(JPEG[:2] + app1 + JPEG[2:]), read(JPEG).transpose(1, 2).flip(2))


def header_only(format: str, width: int, height: int) -> bytes:
    """A picture whose header claims a size that its data does not have."""
    if format == "jpeg":
        size = JPEG.index(b"\xff\xc0") + 5
        return JPEG[:size] + struct.pack(">HH", height, width) + JPEG[size + 4 :]
    if format == "png":
        return PNG_SIGNATURE + chunk(b"IHDR", struct.pack(">II", width, height) + PNG[24:29]) + PNG[33:]
    if format == "gif, screen":
        return GIF[:6] + struct.pack("<HH", width, height) + GIF[10:]
    if format == "gif, image":
        start = GIF.index(struct.pack("<B4H", 0x2C, 0, 0, WIDTH, HEIGHT)) + 5
        return GIF[:start] + struct.pack("<HH", width, height) + GIF[start + 4 :]
    if format == "webp, VP8":
        start = WEBP.index(b"\x9d\x01\x2a") + 3
        return WEBP[:start] + struct.pack("<HH", width, height) + WEBP[start + 4 :]
    if format == "webp, VP8L":
        return webp((b"VP8L", b"\x2f" + struct.pack("<I", width - 1 | height - 1 << 14) + bytes(9)))
    size = b"".join((side - 1).to_bytes(3, "little") for side in (width, height))
    return webp((b"VP8X", b"\x02\0\0\0" + size), (b"ANMF", bytes(16) + WEBP[12:]))


HEADERS = ["jpeg", "png", "gif, screen", "gif, image", "webp, VP8", "webp, VP8L", "webp, canvas"]


@pytest.mark.parametrize("format", HEADERS)
def test_too_many_pixels_are_refused_from_the_header(read, format, monkeypatch):
    """A small file of an enormous picture is refused without calling a decoder."""
    for decoder in ("decode_jpeg", "decode_png", "decode_gif", "decode_webp"):
        monkeypatch.delattr(picture.torchvision().io, decoder)
    side = 16_000 if "VP8" in format else 20_000  # a VP8 side has 14 bits
    with pytest.raises(ValueError, match=f"{side:,} x {side:,} pixels, and at most 50 million"):
        read(header_only(format, side, side))


def test_fewer_pixels_are_read_of_the_kind_that_takes_most_memory(read):
    """16 bits with transparency: decoded, such a pixel has 8 bytes."""
    kind = struct.pack(">IIBBBBB", 7000, 7000, 16, 6, 0, 0, 0)
    with pytest.raises(ValueError, match="7,000 x 7,000 pixels, and at most 37 million"):
        read(PNG_SIGNATURE + chunk(b"IHDR", kind) + PNG[33:])


@pytest.mark.parametrize("format", ["jpeg", "png", "gif, image", "webp, VP8"])
def test_no_pixels_are_refused(read, format):
    with pytest.raises(ValueError, match="damaged"):
        read(header_only(format, 0, 5))


@pytest.mark.parametrize(
    "name",
    [
        "jpeg",
        "png",
        "png, palette",
        "webp, lossy",
        "webp, lossless, RGBA",
        "webp, animated",
        "gif",
    ],
)
def test_every_truncation_is_refused(read, name):
    """A picture cut at any byte is refused, except that a GIF's last byte and a JPEG's last two are no part of it."""
    data = FILES[name]
    spare = {"gif": 1, "jpeg": 2}.get(name.partition(",")[0], 0)
    for end in {*range(1, len(data) - spare, 11), *range(1, 64), len(data) - spare - 3, len(data) - spare - 1}:
        with pytest.raises(ValueError, match=r"damaged|not a picture"):
            read(data[:end])


@pytest.mark.parametrize("name", ["jpeg", "jpeg, progressive", "jpeg, grey", "jpeg, restarts"])
@pytest.mark.parametrize("tail", [b"", b"\xff", b"\xff\xff"])
def test_a_jpeg_without_its_end_marker(read, name, tail):
    """Every viewer opens it; some cameras write such files."""
    assert torch.equal(read(FILES[name].removesuffix(b"\xff\xd9") + tail), read(FILES[name]))


OTHERS = {
    "text": b"I am a picture of a cat.\n",
    "three bytes": b"GIF",
    "sound": b"RIFF\x10\0\0\0WAVEfmt ",
    "BMP": saved(RGB, "BMP"),
    "TIFF": saved(RGB, "TIFF"),
    "HEIC": b"\0\0\0\x1cftypheic" + bytes(99),
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_refused(read, name):
    with pytest.raises(ValueError, match="JPEG, PNG, WebP or GIF"):
        read(OTHERS[name])


BROKEN = {
    "jpeg, nothing": b"\xff\xd8\xff\xd9",
    "jpeg, lossless": JPEG.replace(b"\xff\xc0", b"\xff\xc3"),
    "png, nothing": PNG_SIGNATURE + chunk(b"IEND", b""),
    "png, no data": PNG.replace(b"IDAT", b"IDAt"),
    "png, wrong checksum": PNG[:-13] + bytes([PNG[-13] ^ 1]) + PNG[-12:],
    "png, wrong checksum after the data": PNG[:-12] + chunk(b"tEXt", b"a\0")[:-1] + PNG[-13:],
    "png, impossible header": PNG_SIGNATURE + chunk(b"IHDR", PNG[16:24] + b"\xff" * 5) + PNG[33:],
    "gif, no image": GIF[:13] + b";",
    "gif, control without image": GIF[: 13 + 768] + b"\x21\xf9\x04\0\0\0\0\0;",
    "webp, nothing": webp(),
    "webp, no image": webp((b"VP8X", bytes(10))),
    "webp, frame without image": webp((b"VP8X", bytes(10)), (b"ANMF", bytes(16))),
    "webp, frame without canvas": webp((b"ANMF", bytes(16) + WEBP[12:])),
    "webp, chunk beyond the end": b"RIFF" + struct.pack("<I", len(WEBP)) + WEBP[8:] + b"EXIF\x09\0\0\0",
    "webp, frame off the canvas": webp((b"VP8X", b"\x02" + bytes(9)), (b"ANMF", bytes(16) + WEBP[12:])),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_called_damaged(read, name):
    """Files with a valid signature but without a valid picture."""
    with pytest.raises(ValueError, match="damaged"):
        read(BROKEN[name])


def test_refused_paths(tmp_path, monkeypatch):
    """A missing, empty, large or unopenable file, or a folder: one sentence each, without the path."""
    monkeypatch.setattr(picture, "MAX_BYTES", 2**20)
    secret = tmp_path / "secret-run"
    secret.mkdir()
    (secret / "empty.png").touch()
    (secret / "large.png").write_bytes(PNG + bytes(2**20))
    cases = {
        "missing.png": "no such",
        "": "folder",
        "empty.png": "empty",
        "large.png": "at most 1 MiB",
        "a\0b": "no such",
        "x" * 5000: "cannot be opened",
    }
    for name, words in cases.items():
        with pytest.raises(ValueError, match=words) as caught:
            read_picture(str(secret / name))
        assert "secret" not in str(caught.value)
        assert str(caught.value).endswith(".")
        assert "\n" not in str(caught.value)


def answer(read, data: bytes) -> torch.Tensor | str:
    try:
        return read(data)
    except ValueError as error:
        return str(error)


TEXT = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(7_900_000)))
TINY_PARTS = {
    "jpeg segments": lambda: b"\xff\xd8" + b"\xff\xe2\0\x02" * 2_000_000 + b"\xff\xd9",
    "jpeg stuffing": lambda: JPEG[:-2] + b"\xff\0" * 4_000_000 + b"\xff\xd9",
    "png chunks": lambda: PNG[:33] + chunk(b"tEXt", b"") * 700_000 + PNG[33:],
    "png texts": lambda: PNG[:33] + TEXT * 999 + PNG[33:],
    "gif extensions": lambda: GIF[: 13 + 768] + b"\x21\x01\0" * 2_700_000,
    "gif blocks": lambda: GIF[: 13 + 768] + b"\x21\x01" + b"\x01\x01" * 4_000_000,
    "webp chunks": lambda: webp(*[(b"junk", b"")] * 1_000_000),
}


@pytest.mark.parametrize("name", TINY_PARTS)
def test_many_tiny_parts(read, name):
    """8 MiB of tiny parts are walked once, and compressed text is not decompressed."""
    data = TINY_PARTS[name]()
    start = time.process_time()
    result = answer(read, data)
    assert time.process_time() - start < 5
    if name in ("jpeg stuffing", "png texts"):
        assert result.shape == (3, HEIGHT, WIDTH)
    else:
        assert "damaged" in result


def test_a_jpeg_of_too_many_scans_is_refused(read):
    """Each scan of a progressive JPEG costs a pass over the whole picture, even if it has few bytes."""
    data = FILES["jpeg, progressive"]
    scan = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(ValueError, match="damaged"):
        read(data[:-2] + scan * 1000 + b"\xff\xd9")


def test_only_the_first_frame_is_decoded(read):
    """A thousand more frames, invalid ones, change nothing."""
    end = GIF.rindex(b";")
    frame = struct.pack("<B4HB", 0x2C, 0, 0, 65535, 65535, 0) + b"\x08\x02\xff\xff\0"
    assert torch.equal(read(GIF[:end] + frame * 1000 + b";"), read(GIF))


def test_random_damage_is_refused_or_read(read, monkeypatch):
    """A thousand files with changed, missing or added bytes give a picture or an error of one sentence."""
    monkeypatch.setattr(picture, "MAX_PIXELS", 100_000)
    chance = random.Random(0)
    for _ in range(1000):
        data = bytearray(FILES[chance.choice(list(FILES))])
        for _ in range(chance.choice((1, 1, 2, 8))):
            at = chance.randrange(min(len(data), chance.choice((40, 400, 10**9))))
            end = at + chance.choice((1, 1, 1, 0, 9))
            data[at:end] = chance.randbytes(chance.choice((1, 1, 1, 0, 9)))
        if data.startswith(PNG_SIGNATURE):
            data = with_right_checksums(data)
        result = answer(read, data)
        if isinstance(result, str):
            assert result.endswith(".")
            assert "\n" not in result
        else:
            assert result.dtype == torch.uint8
            assert result.ndim == 3
            assert result.shape[0] == 3
            assert result[0].numel() <= 100_000


def with_right_checksums(data: bytes) -> bytes:
    """Corrects the checksums, so that the damage reaches the decoder."""
    right, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        right += chunk(bytes(data[at + 4 : at + 8]), bytes(data[at + 8 : at + 8 + length]))
        at += 12 + length
    return bytes(right)


@pytest.mark.parametrize("resize", RESIZES)
def test_fit_leaves_the_right_size_alone(resize):
    pixels = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    assert torch.equal(fit(pixels, 32, resize), pixels)


def test_fit_crop_is_scale_and_centre_crop(read):
    """Cutting before scaling differs from torchvision's Resize and CenterCrop only by rounding."""
    pixels = read(saved(smooth(3, size=(300, 200)), "PNG"))
    usual = F.center_crop(F.resize(pixels, [32], antialias=True), [32, 32])
    assert (fit(pixels, 32, "crop").int() - usual.int()).abs().max() <= 4


def test_fit_squash_is_pillows_bilinear(read):
    """Both sides are scaled, antialiased as in Pillow."""
    image = smooth(3, size=(300, 200))
    reference = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR))
    assert_same(fit(read(saved(image, "PNG")), 32, "squash").contiguous(), reference, within=1)


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("shape", [(1, 10_000), (10_000, 1), (1, 1), (7, 3), (1, 200_000)])
def test_fit_any_shape(resize, shape):
    """A strip or a dot becomes a square, without using more memory than the picture."""
    square = fit(torch.full((3, *shape), 77, dtype=torch.uint8), 32, resize)
    assert torch.equal(square, torch.full((3, 32, 32), 77, dtype=torch.uint8))


def test_fit_refuses_another_rule():
    with pytest.raises(ValueError, match="crop, squash"):
        fit(torch.zeros(3, 4, 4, dtype=torch.uint8), 2, "stretch")
