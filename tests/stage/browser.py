"""Drives Chromium for `browser.rs`: one order (JSON) a line on stdin, one answer a line on stdout."""

import json
import pathlib
import sys

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 400, "height": 800}

READ = """() => {
  const text = (selector) => document.querySelector(selector)?.textContent.trim().replace(/\\s+/g, ' ') ?? null;
  const all = (selector, of) => [...document.querySelectorAll(selector)].map(of);
  // What is not near the screen has no `innerText`.
  const cells = (row) => [...row.cells].map((cell) => cell.textContent.trim().replace(/\\s+/g, ' ')).join(' ');
  return {
    title: document.title, text: document.body.innerText, link: text('#link'), said: text('#said'),
    phase: document.querySelector('#phase')?.dataset.phase ?? null, health: text('#health'), next: text('#next'),
    reason: text('#reason'), answer: text('#answer'), over: document.body.dataset.over ?? null,
    steps: Object.fromEntries(all('#steps tr[data-step]', (row) => [row.dataset.step, row.querySelector('.state').textContent])),
    before: Object.fromEntries(all('#steps tr[data-step]', (row) => [row.dataset.step, row.cells[3].textContent.trim()])),
    approvals: all('#do form[id^=approve-]', (form) => form.id.slice(8)),
    buttons: all('#do button', (button) => [button.textContent, button.disabled]),
    slots: all('#lag tr[data-slot]', (row) => row.dataset.slot),
    write_ms: document.querySelector('#write-ms')?.dataset.ms ?? null, read_ms: document.querySelector('#read-ms')?.dataset.ms ?? null,
    purged: text('#purged'), ended: text('#ended'), resubmitted: text('#resubmitted'),
    lanes: all('#cut .lane svg[role=img]', (lane) => lane.getAttribute('aria-label')),
    ddl: all('#ddl tbody tr', cells), parameters: all('#parameters tbody tr', cells),
    facts: all('#facts tr[data-seq]', (row) => Number(row.dataset.seq)),
    charts: all('.chart .uplot', (chart) => chart.getAttribute('aria-label')),
    upgrades: all('#upgrades tr[data-upgrade]', (row) => row.innerText), agents: all('#agents tbody tr', (row) => row.innerText),
    focus: document.activeElement?.id ?? null,
  };
}"""


def paint(browser, url, times):
    """First contentful paint in a new, empty browser each time, in milliseconds."""
    found = []
    for _ in range(times):
        context = browser.new_context(viewport=WIDE)
        page = context.new_page()
        page.goto(url, wait_until="load")
        # Asked again and again from here: the page's policy lets no text be run in it.
        while not page.evaluate("() => performance.getEntriesByName('first-contentful-paint').length"):
            page.wait_for_timeout(10)
        found.append(page.evaluate("""() => {
          const at = performance.getEntriesByName('first-contentful-paint')[0].startTime;
          const loaded = performance.getEntriesByType('navigation')[0];
          return [at, loaded.responseStart, loaded.responseEnd, loaded.encodedBodySize];
        }"""))
        context.close()
    return found


def main():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=sys.argv[1], args=["--no-sandbox"])
        context = browser.new_context(viewport=WIDE)
        page = context.new_page()
        wrong = []
        page.on("pageerror", lambda error: wrong.append(str(error)))

        def heard(message):
            # A coordinator that is away is what some tests are about; the network's errors are not the page's.
            if message.type == "error" and "net::ERR_" not in message.text and "status of " not in message.text:
                wrong.append(message.text)

        page.on("console", heard)

        def do(order):
            what = order["do"]
            if what == "open":
                page.goto(order["url"], wait_until="load")
            elif what == "read":
                return page.evaluate(READ) | {"wrong": wrong}
            elif what == "press":
                page.locator(order["what"]).click(timeout=20000)
            elif what == "fill":
                page.locator(order["what"]).fill(order["text"], timeout=20000)
            elif what == "keys":
                for key in order["keys"]:
                    page.keyboard.press(key)
            elif what == "eval":
                return page.evaluate(order["js"])
            elif what == "shots":
                folder = pathlib.Path(order["folder"])
                for name, scheme, size in [("light", "light", WIDE), ("dark", "dark", WIDE), ("narrow", "light", NARROW)]:
                    page.emulate_media(color_scheme=scheme)
                    page.set_viewport_size(size)
                    page.wait_for_timeout(150)
                    page.screenshot(path=folder / f"{order['name']}-{name}.png", full_page=True)
                wide = page.evaluate("document.documentElement.scrollWidth")
                page.emulate_media(color_scheme="light")
                page.set_viewport_size(WIDE)
                return wide
            elif what == "barriers":
                lines = []
                for scheme in ["light", "dark"]:
                    page.emulate_media(color_scheme=scheme)
                    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]})
                    for rule in found.response["violations"]:
                        for node in rule["nodes"]:
                            lines.append(f"{scheme}: {rule['id']}: {node['html'][:200]}: {node.get('failureSummary', '')}")
                page.emulate_media(color_scheme="light")
                return lines
            elif what == "paint":
                return paint(browser, order["url"], order["times"])
            else:
                raise ValueError(f"no such order: {what}")

        for line in sys.stdin:
            try:
                answer = {"said": do(json.loads(line))}
            except Exception as error:  # whatever it is, the test says it
                answer = {"wrong": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), flush=True)
        browser.close()


main()
