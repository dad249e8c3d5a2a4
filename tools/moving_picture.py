"""figures/moving.webp, the moving picture of the README: the view of λ in 52, state by state, by a browser.

Made again by `python tools/moving_picture.py`, with Chromium; a test makes some frames and looks at the file.
"""

import html
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "figures" / "moving.webp"
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
SIZE = 980, 560  # pixels of a browser's window


def view(notebook: str = "52_hypernet_complexity") -> str:
    "The page of the first player in a committed notebook."
    nb = json.loads((ROOT / "nbs" / f"{notebook}.ipynb").read_text(encoding="utf-8"))
    shown = [
        "".join(o.get("data", {}).get("text/html", "")) for c in nb["cells"] for o in c.get("outputs", [])
    ]
    return html.unescape(re.search('srcdoc="(.*?)">', next(t for t in shown if "srcdoc=" in t), re.S)[1])


def states(page: str) -> int:
    "How many states its slider has."
    return len(json.JSONDecoder().raw_decode(page.partition("const DATA = ")[2])[0]["shows"][0]["labels"])


def frames(page: str, at: list[int], folder: Path) -> list[Image.Image]:
    "Some states of a page, one under the other in one picture of a browser, then cut apart."
    W, H = SIZE
    move = """<script>addEventListener("load", () => { const at = document.querySelector("#at");
      at.value = %d; at.dispatchEvent(new Event("input")); })</script></html>"""
    moved = (html.escape(page.replace("</html>", move % n)) for n in at)
    frame = f'<iframe style="display:block;border:0" width={W} height={H} srcdoc="%s"></iframe>'
    body = "".join(frame % text for text in moved)
    (folder / "all.html").write_text(f'<body style="margin:0">{body}</body>', encoding="utf-8")
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=9000"]
    words += [f"--window-size={W},{H * len(at)}", f"--screenshot={folder / 'all.png'}"]
    command = [BROWSER, *words, f"file://{folder}/all.html"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    with Image.open(folder / "all.png") as image:
        return [image.convert("RGB").crop((0, H * i, W, H * i + H)) for i in range(len(at))]


def main(every: int = 2) -> None:
    "Write the picture: there and back."
    page = view()
    with tempfile.TemporaryDirectory() as folder:
        shots = frames(page, list(range(0, states(page), every)), Path(folder))
    there_and_back = [*shots, *shots[-2:0:-1]]
    waits = [1500 if shot in (shots[0], shots[-1]) else 180 for shot in there_and_back]
    how = dict(append_images=there_and_back[1:], duration=waits, loop=0, quality=80, method=6)
    there_and_back[0].save(PICTURE, save_all=True, **how)


if __name__ == "__main__":
    main()
