"""A page in a browser, as its tests see it."""

import json
import re
import shutil
import subprocess

CHROMIUM = shutil.which("chromium")

# The page stands in a frame of the width under test (a window has a least width of its own) and
# tells its own measures to the page around it.
MEASURES = """<script>
const wide = [...document.querySelectorAll("body *")].filter(e => !e.closest(".wide *") &&
  e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5);
parent.postMessage({scroll: document.documentElement.scrollWidth,
  client: document.documentElement.clientWidth, wide: wide.map(e => e.outerHTML.slice(0, 90)),
  images: [...document.images].filter(i => i.naturalWidth > 0).length}, "*");
</script>"""
AROUND = """<!doctype html><iframe src="page.html" width="{width}" height="30000"
style="border:0"></iframe><pre id="found"></pre><script>onmessage = e =>
document.getElementById("found").textContent = JSON.stringify(e.data)</script>"""


def dom(path, *options):
    """The page's elements once its scripts have run."""
    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000",
        f"--user-data-dir={path.parent / 'profile'}", *options, "--dump-dom", path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return done.stdout


def laid_out(folder, html, width):
    """What the page says of its own layout at that width."""
    (folder / "page.html").write_text(html.replace("</body>", f"{MEASURES}</body>"))
    (folder / "around.html").write_text(AROUND.format(width=width))
    found = re.search(r'<pre id="found">(.*?)</pre>', dom(folder / "around.html"), re.DOTALL)
    return json.loads(found[1].replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&"))
