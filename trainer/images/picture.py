"""Decodes untrusted image files to RGB pixels.

Nothing in a file is trusted before it is checked. Each reader below walks through the structure of its format, checks
the size, and passes a new file to the decoder, with only those parts that the first picture needs: metadata, later
frames, compressed comments and trailing bytes never reach the decoder. Reading past the end of the file raises
LookupError or struct.error, and a failing decoder RuntimeError; decode_picture turns all of them into a UserError.

Why not Pillow, which would make this module much shorter: a plain reader on Pillow 12.3 fails 26 of the 170
tests of this module. It decodes any number of progressive JPEG scans, takes 14 seconds of processor time for 8 MiB
of empty PNG chunks, inflates compressed PNG text, and accepts some truncated PNG and GIF files. It also renders
16-bit samples, and a transparent level of 2-, 4- and 16-bit grey, differently from the PNG specification. Refusing
such files beforehand needs the same walk through their structure, so Pillow would replace only the last step.
"""

import os
import re
import struct
import zlib
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from trainer.errors import UserError

RESIZES = ("crop", "squash")

MAX_BYTES = 64 * 2**20
MAX_PIXELS = 50_000_000
# Real files stay far below these limits, without which a small file could keep a processor busy for minutes.
MAX_PARTS = 500_000
MAX_SCANS = 64
_ROWS = 64  # of a picture that are converted at a time, by way of numbers with 32 bits

DAMAGED = "The picture is damaged or incomplete: please try another copy of it."
UNREADABLE = "The file is not a picture that can be read here: please use JPEG, PNG, WebP or GIF."

Decoded = tuple[Tensor, bytes]  # the picture, uint8 [3, height, width], and its EXIF block, which may be empty


def torchvision() -> ModuleType:
    """Returns torchvision. The first call imports it, which takes as long as torch itself and no training needs."""
    import torchvision.io
    import torchvision.transforms.v2  # noqa: F401

    return torchvision


def read_picture(path: str | os.PathLike[str]) -> Tensor:
    """Returns the picture in a JPEG, PNG, WebP or GIF file, decoded by `decode_picture`, as a contiguous tensor.

    Raises UserError if there is no such file, if it has more than MAX_BYTES, or if it cannot be decoded.
    """
    return decode_picture(file_bytes(path)).contiguous()


def decode_picture(data: bytes) -> Tensor:
    """Returns the picture in the bytes of a JPEG, PNG, WebP or GIF file: uint8 [3, height, width], RGB, 0–255, upright.

    The format is recognised by the content. The EXIF orientation is applied, transparency is composited over white, an
    animation gives its first frame, and colour profiles are ignored. A picture of more than MAX_PIXELS is refused
    before it is decoded; decoding takes up to about 30 bytes of memory a pixel. The tensor may have any memory layout.

    Raises UserError if the file is damaged, too large or in another format.
    """
    try:
        if data.startswith(b"\xff\xd8\xff"):
            picture, exif = _jpeg(data)
        elif data.startswith(b"\x89PNG\r\n\x1a\n"):
            picture, exif = _png(data)
        elif data.startswith((b"GIF87a", b"GIF89a")):
            picture, exif = _gif(data)
        elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            picture, exif = _webp(data)
        else:
            raise UserError(UNREADABLE)
        return _upright(picture, _orientation(exif))
    except (LookupError, struct.error, RuntimeError, MemoryError) as error:
        raise UserError(DAMAGED) from error


def fit(picture: Tensor, size: int, resize: str) -> Tensor:
    """Returns a picture, uint8 [3, height, width], resized to uint8 [3, size, size]: bilinear, antialiased.

    "crop" scales the shorter side to `size` and keeps the centre square; "squash" scales each side on its own. A
    picture of the right size is returned as it is. "crop" crops before it scales: the pixels are
    the same up to rounding, but a strip of 1×10,000 never becomes one of size × 10,000·size.

    Raises UserError if `resize` is not one of RESIZES.
    """
    if resize not in RESIZES:
        raise UserError(
            "There is no resize rule {rule}: choose one of {rules}.", rule=f"{resize!r}", rules=", ".join(RESIZES)
        )
    if picture.shape[1:] == (size, size):
        return picture
    if resize == "crop":
        picture = torchvision().transforms.v2.functional.center_crop(picture, [min(picture.shape[1:])])
    return torchvision().transforms.v2.functional.resize(picture, [size, size], antialias=True)


def file_bytes(path: str | os.PathLike[str]) -> bytes:
    """Returns the content of a picture's file. Raises UserError if there is none, or if it has more than MAX_BYTES."""
    path = Path(path)  # it may be a server's: no message contains it
    try:
        if path.is_dir():
            raise UserError("This is a folder, not a picture: please choose a file.")
        if not path.is_file():
            raise UserError("There is no such picture: please choose a file.")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError("The picture cannot be opened: please choose another file.") from error
    if not data:
        raise UserError("The file is empty: please choose another one.")
    if len(data) > MAX_BYTES:
        raise UserError("The file is too large: a picture may have at most {size} MiB.", size=MAX_BYTES // 2**20)
    return data


def _check_size(width: int, height: int, share: float = 1.0) -> None:
    """Raises UserError if a picture has no pixels, or more than this share of MAX_PIXELS."""
    most = int(share * MAX_PIXELS)
    if width < 1 or height < 1:
        raise UserError(DAMAGED)
    if width * height > most:
        raise UserError(
            "The picture is too large: it has {width} x {height} pixels, and at most {most} million pixels are read.",
            width=f"{width:,}",
            height=f"{height:,}",
            most=most // 1_000_000,
        )


# Skips markers without a body: bytes stuffed into coded data, fill bytes, restarts, TEM and SOI.
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")
_SOF = {0xC0, 0xC1, 0xC2}  # baseline, extended and progressive; the rare others are refused
_SOS, _EOI, _EXIF = 0xDA, 0xD9, 0xE1
_ESSENTIAL = {*_SOF, _SOS, 0xC4, 0xDB, 0xDD, 0xE0, 0xEE}  # and DHT, DQT, DRI, JFIF, Adobe


def _jpeg(data: bytes) -> Decoded:
    """Decodes a JPEG file.

    ITU-T T.81, annex B: segments of marker, length and body. A scan's data lasts until the next marker. The end marker
    may be missing, as in files of some cameras.
    """
    file, exif, scans, kind = bytearray(b"\xff\xd8"), b"", 0, 0
    marker = _MARKER.search(data, 2)
    for _ in range(MAX_PARTS):
        if marker is None or data[marker.start() + 1] == _EOI:
            break
        start, kind = marker.start(), data[marker.start() + 1]
        end = start + 2 + struct.unpack_from(">H", data, start + 2)[0]
        if end > len(data):
            raise UserError(DAMAGED)
        marker = _MARKER.search(data, end)
        if kind in _SOF:
            height, width = struct.unpack_from(">HH", data, start + 5)
            _check_size(width, height)
        elif kind == _SOS:
            scans, end = scans + 1, marker.start() if marker else len(data)
        elif kind == _EXIF and not exif and data.startswith(b"Exif\0\0", start + 4):
            exif = data[start + 4 : end]
        if kind in _ESSENTIAL:
            file += data[start:end]
    is_ended = marker is not None and data[marker.start() + 1] == _EOI
    lacks_end = marker is None and kind == _SOS
    if not (is_ended or lacks_end) or scans > MAX_SCANS:
        raise UserError(DAMAGED)
    if lacks_end:
        return _jpeg_without_end(file.rstrip(b"\xff")), exif
    return torchvision().io.decode_jpeg(_tensor(file + b"\xff\xd9"), mode="RGB"), exif


def _jpeg_without_end(file: bytearray) -> Tensor:
    """Decodes a JPEG file that ends within the data of its last scan. Raises UserError if some of the data is missing.

    If it is complete, more data changes nothing; otherwise the decoder takes it for the missing part.
    """
    picture, continued = (
        torchvision().io.decode_jpeg(_tensor(file + more + b"\xff\xd9"), mode="RGB") for more in (b"", b"\x5a" * 4096)
    )
    if not torch.equal(picture, continued):
        raise UserError(DAMAGED)
    return picture


def _png(data: bytes) -> Decoded:
    """Decodes a PNG file.

    PNG specification, 5.3 (chunks: length, type, body and checksum) and 11 (their content).
    """
    chunks: defaultdict[bytes, bytearray] = defaultdict(bytearray)
    at, kind = 8, b""
    for _ in range(MAX_PARTS):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        (checksum,) = struct.unpack_from(">I", data, end)
        if kind == b"IEND" or checksum != zlib.crc32(memoryview(data)[at + 4 : end]):
            break
        if kind in (b"IHDR", b"PLTE", b"IDAT", b"tRNS", b"eXIf"):
            chunks[kind] += memoryview(data)[at + 8 : end]
        at = end + 4
    if kind != b"IEND":
        raise UserError(DAMAGED)
    header, clear, exif = chunks[b"IHDR"], chunks[b"tRNS"], bytes(chunks[b"eXIf"])
    width, height, depth, colour = struct.unpack_from(">IIBB", header)
    _check_size(width, height, 0.75 if (depth, colour) == (16, 6) else 1.0)  # decoded, such a pixel has 8 bytes
    file = data[:8] + _png_chunk(b"IHDR", header)
    if colour == 3:
        file += _png_chunk(b"PLTE", _INDICES[: 3 << depth])
    encoded = _tensor(file + _png_chunk(b"IDAT", chunks[b"IDAT"]) + _png_chunk(b"IEND", b""))
    if colour == 3:  # "UNCHANGED" would leave the indices packed, several to a byte
        return _painted(torchvision().io.decode_png(encoded, mode="RGB")[0], chunks[b"PLTE"], clear), exif
    samples, alpha = torchvision().io.decode_png(encoded), None
    if colour >= 4:
        samples, alpha = samples[:-1], _eight_bit(samples[-1:])[0]
    elif clear:
        scale = 255 // (2**depth - 1) if depth < 8 else 1
        keys = [key % 2**depth * scale for key in struct.unpack_from(f">{len(samples)}H", clear)]
        opaque = torch.stack([sample != key for sample, key in zip(samples, keys, strict=True)])
        alpha = opaque.any(0).byte() * 255
    samples = _eight_bit(samples)
    return (samples if alpha is None else _over_white(samples, alpha)).expand(3, -1, -1), exif


def _png_chunk(kind: bytes, body: bytes | bytearray) -> bytes:
    return struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))


def _eight_bit(samples: Tensor) -> Tensor:
    """Converts uint8 or uint16 [channels, height, width] to uint8: PNG specification, 13.12, in integers."""
    if samples.dtype == torch.uint8:
        return samples
    converted = torch.empty(samples.shape, dtype=torch.uint8)
    for rows, into in zip(samples.split(_ROWS, 1), converted.split(_ROWS, 1), strict=True):
        into.copy_((rows.int() * 255 + 32895) >> 16)
    return converted


def _gif(data: bytes) -> Decoded:
    """Decodes the first image of a GIF file.

    GIF89a, 18 to 23: a logical screen, extensions, and images, which may cover only a part of the screen. The decoder
    gets only the first image, with a colour table that maps each index to itself. Given the whole file, it would paint
    the background colour on uncovered pixels, and read past the end of a colour table that is too short.
    """
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    table = _gif_table(data, 13, flags)
    at, clear = 13 + len(table), None
    for _ in range(MAX_PARTS):
        if data[at] != 0x21:
            break
        if data[at + 1] == 0xF9:  # graphic control
            clear = data[at + 6] if data[at + 3] & 1 else None
        at = _gif_blocks_end(data, at + 2)
    if data[at] != 0x2C:
        raise UserError(DAMAGED)
    left, top, columns, rows, flags = struct.unpack_from("<4HB", data, at + 1)
    # As in Pillow, an image that extends beyond the screen enlarges it.
    width, height = max(width, left + columns), max(height, top + rows)
    _check_size(width, height)
    own = _gif_table(data, at + 10, flags)
    at += 10 + len(own)
    screen = struct.pack("<6sHHBBB", b"GIF89a", columns, rows, 0xF7, 0, 0) + _INDICES
    image = struct.pack("<B4HB", 0x2C, 0, 0, columns, rows, flags & 0x40)
    image += data[at : _gif_blocks_end(data, at + 1)]
    # As in Pillow, uncovered pixels are transparent, or have the first colour if the image has no transparency.
    indices = torch.full((height, width), clear or 0, dtype=torch.uint8)
    indices[top : top + rows, left : left + columns] = torchvision().io.decode_gif(_tensor(screen + image + b";"))[0]
    return _painted(indices, own or table, b"" if clear is None else b"\xff" * clear + b"\0"), b""


def _gif_table(data: bytes, at: int, flags: int) -> bytes:
    return data[at : at + 3 * 2 ** (flags % 8 + 1)] if flags & 0x80 else b""


def _gif_blocks_end(data: bytes, at: int) -> int:
    while data[at]:
        at += data[at] + 1
    return at + 1


def _webp(data: bytes) -> Decoded:
    """Decodes a WebP file, of an animation the first frame.

    RFC 9649: a RIFF file with one image, VP8 (with its ALPH) or VP8L, or with ANMF frames on a VP8X canvas.
    """
    (size,) = struct.unpack_from("<I", data, 4)
    if 8 + size > len(data):
        raise UserError(DAMAGED)
    chunks = _webp_chunks(data[12 : 8 + size])
    exif = chunks.get(b"EXIF", b"")
    if b"ANMF" not in chunks:
        return _webp_image(chunks), exif
    frame, screen = chunks[b"ANMF"], chunks[b"VP8X"]
    left, top = (2 * int.from_bytes(frame[at : at + 3], "little") for at in (0, 3))
    width, height = (1 + int.from_bytes(screen[at : at + 3], "little") for at in (4, 7))
    _check_size(width, height)
    image = _webp_image(_webp_chunks(frame[16:]))
    canvas = torch.full((3, height, width), 255, dtype=torch.uint8)
    canvas[:, top : top + image.shape[1], left : left + image.shape[2]] = image
    return canvas, exif


def _webp_image(chunks: dict[bytes, bytes]) -> Tensor:
    """Decodes an image from the chunks of a still file or a frame, over white; headers: RFC 9649, 2.5 to 2.7."""
    parts: dict[bytes, bytes]
    if b"VP8 " in chunks:
        width, height = (n & 0x3FFF for n in struct.unpack_from("<HH", chunks[b"VP8 "], 6))
        parts = {kind: chunks[kind] for kind in (b"ALPH", b"VP8 ") if kind in chunks}
    else:
        (bits,) = struct.unpack_from("<I", chunks[b"VP8L"], 1)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        parts = {b"VP8L": chunks[b"VP8L"]}
    _check_size(width, height)
    if b"ALPH" in parts:
        sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        parts = {b"VP8X": b"\x10\0\0\0" + sides, **parts}
    body = b"WEBP"
    for kind, part in parts.items():
        body += struct.pack("<4sI", kind, len(part)) + part + b"\0" * (len(part) % 2)
    image = torchvision().io.decode_webp(_tensor(b"RIFF" + struct.pack("<I", len(body)) + body))
    return _over_white(image[:3], image[3]) if len(image) == 4 else image


def _webp_chunks(data: bytes) -> dict[bytes, bytes]:
    """Returns the body of the first chunk of each relevant type, by type."""
    chunks: dict[bytes, bytes] = {}
    at = 0
    for _ in range(MAX_PARTS):
        if at + 8 > len(data):
            return chunks
        kind, size = struct.unpack_from("<4sI", data, at)
        if at + 8 + size > len(data):
            break
        if kind in (b"VP8X", b"ANMF", b"ALPH", b"VP8 ", b"VP8L", b"EXIF"):
            chunks.setdefault(kind, data[at + 8 : at + 8 + size])
        at += 8 + size + size % 2
    raise UserError(DAMAGED)


def _tensor(data: bytes | bytearray) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


_INDICES = bytes(i for i in range(256) for _ in "RGB")  # a colour table that maps each index to itself


def _painted(indices: Tensor, table: bytes | bytearray, alphas: bytes | bytearray) -> Tensor:
    """Returns uint8 [3, height, width]: the colours of uint8 indices [height, width] in a table, over white.

    Indices beyond the end of the table become opaque greys.
    """
    colours = _tensor((table + _INDICES[len(table) :])[:768]).view(256, 3).T
    colours = _over_white(colours, _tensor((alphas + b"\xff" * 256)[:256]))
    return colours.index_select(1, indices.flatten().int()).view(3, *indices.shape)


def _over_white(samples: Tensor, alpha: Tensor) -> Tensor:
    """Composites uint8 samples [channels, …] with the opacity `alpha`, uint8 […], over white."""
    composited = torch.empty(samples.shape, dtype=torch.uint8)
    parts = samples.split(_ROWS, 1), alpha.split(_ROWS), composited.split(_ROWS, 1)
    for rows, opacity, into in zip(*parts, strict=True):
        into.copy_(255 - ((255 - rows).int() * opacity + 127) // 255)
    return composited


def _orientation(exif: bytes) -> int:
    """Returns the SHORT of tag 274 in the first directory (TIFF 6.0); 1, upright, if there is none."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    with suppress(struct.error):
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (entries,) = struct.unpack_from(order + "H", exif, start)
        for at in range(start + 2, start + 2 + 12 * entries, 12):
            tag, kind, value = struct.unpack_from(order + "HH4xH", exif, at)
            if (tag, kind) == (274, 3):
                return value
    return 1


def _upright(picture: Tensor, orientation: int) -> Tensor:
    """Applies TIFF 6.0's Orientation: 5 to 8 transpose, then each value has its own mirroring."""
    if 5 <= orientation <= 8:
        picture = picture.transpose(1, 2)
    mirrored = {2: [2], 3: [1, 2], 4: [1], 6: [2], 7: [1, 2], 8: [1]}.get(orientation, [])
    return picture.flip(mirrored) if mirrored else picture  # flip copies even if there is nothing to mirror
