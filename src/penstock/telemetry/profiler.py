"""What the event loop's thread spends its time with: recorded for a while, shown as a flame graph.

Recorded by pyinstrument, which notes the stack a thousand times a second at most, of this thread alone: all
tasks and callbacks of the gateway, whatever they wait for. What a task awaits shows as the frames of the
coroutines that were running; a loop that had nothing to do shows as `Runner.run`. An extra: only the
assembly imports this module.
"""

from typing import Final

from pyinstrument import Profiler
from pyinstrument.renderers import HTMLRenderer, SpeedscopeRenderer
from pyinstrument.session import Session

MAX_SAMPLES: Final = 10_000
"""Of one recording: for a longer one, less often."""

MIN_INTERVAL: Final = 0.001

RENDERERS: Final = {"html": HTMLRenderer, "speedscope": SpeedscopeRenderer}


class Recording:
    """One recording of the thread that starts it; `start` and `stop` are called in that thread."""

    def __init__(self, seconds: float) -> None:
        """``seconds``: how long it will be."""
        interval = max(MIN_INTERVAL, seconds / MAX_SAMPLES)
        self._profiler = Profiler(interval=interval, async_mode="disabled")
        self._session: Session | None = None

    def start(self) -> None:
        """Begin."""
        self._profiler.start(target_description="penstock")

    def stop(self) -> None:
        """End. Idempotent."""
        if self._profiler.is_running:
            self._session = self._profiler.stop()

    def render(self, form: str) -> bytes:
        """Return it as a page (``html``), or as JSON for speedscope.app; takes a second, in any thread."""
        assert self._session is not None
        shown: str = RENDERERS[form]().render(self._session)
        return shown.encode()
