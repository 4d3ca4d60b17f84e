"""Writes the characters that assets/fonts/droid-sans-fallback.ttf keeps: common Chinese (GB 2312 level 1, Big5 level 1), Japanese (JIS X 0208
level 1, kana), Korean (KS X 1001 syllables), their punctuation and full-width forms. Usage: python3 scripts/fonts/cjk.py > cjk.txt
"""
import sys

ANY = [*range(0x40, 0x7F), *range(0xA1, 0xFF)]


def characters(encoding, first_bytes, second_bytes=range(0xA1, 0xFF)):
    found = set()
    for first in first_bytes:
        for second in second_bytes:
            try:
                found |= set(bytes([first, second]).decode(encoding))
            except UnicodeDecodeError:
                pass
    return found


chinese = characters("gb2312", range(0xB0, 0xD8)) | characters("big5", range(0xA4, 0xC7), ANY)
japanese = characters("euc_jp", [0xA4, 0xA5, *range(0xB0, 0xD0)])
korean = characters("euc_kr", range(0xB0, 0xC9))
marks = {chr(c) for first, last in ((0x3000, 0x30FF), (0xFF00, 0xFFEF)) for c in range(first, last + 1)}
kept = sorted(c for c in chinese | japanese | korean | marks if ord(c) > 0x2E00)
sys.stdout.buffer.write("".join(kept).encode("utf-8"))
