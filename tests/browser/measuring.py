"""What a page costs: its nodes, its heap, and the time of its scripts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from playwright.sync_api import CDPSession, Page

# Frames that take long, with the sum of their scripts' times: the browser reports them to whoever observes.
OBSERVE: Final = """
() => {
  window.longFrames = [];
  new PerformanceObserver((list) => {
    for (const frame of list.getEntries())
      window.longFrames.push(frame.scripts.reduce((sum, script) => sum + script.duration, 0));
  }).observe({ type: "long-animation-frame", buffered: false });
}
"""
COUNT: Final = """
() => {
  const walker = document.createTreeWalker(document, NodeFilter.SHOW_ALL);
  let nodes = 1;
  while (walker.nextNode()) nodes += 1;
  return nodes;
}
"""


def nodes(page: Page) -> int:
    """How many nodes the document has: elements, texts and all."""
    found: int = page.evaluate(COUNT)
    return found


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a page did in some time."""

    most_nodes: int
    heap: int
    """Bytes that are still used after the garbage is collected."""
    script_share: float
    """Of the time, how much went into scripts."""
    longest_script: float
    """Milliseconds of scripts in one long frame, the worst of them."""


def measure(page: Page, act: Callable[[], None], times: int) -> Cost:
    """Act so many times, and say what it cost."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    page.evaluate(OBSERVE)
    before, most = _metrics(session), 0
    for _ in range(times):
        act()
        most = max(most, nodes(page))
    after = _metrics(session)
    session.send("HeapProfiler.collectGarbage")
    heap = int(_metrics(session)["JSHeapUsedSize"])
    took = after["Timestamp"] - before["Timestamp"]
    longest: float = page.evaluate("Math.max(0, ...window.longFrames)")
    session.detach()
    return Cost(
        most_nodes=most,
        heap=heap,
        script_share=(after["ScriptDuration"] - before["ScriptDuration"]) / took,
        longest_script=longest,
    )


def _metrics(session: CDPSession) -> dict[str, Any]:
    return {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
