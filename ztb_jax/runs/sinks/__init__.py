"""Where a run tells what happens in it, beside its own directory. Imports no jax, and no tracker before use.

A sink is a callable of one `Event`; it may return facts for the run's metadata, such as a page's address.
Each has a thread of its own: one that fails is reported and left out from then on, one that is slow never
slows training, and one that hangs is given up at the end.
"""

from ztb_jax.runs.sinks.event import Event, Kind, Sink
from ztb_jax.runs.sinks.make import check_sinks, make_sinks
from ztb_jax.runs.sinks.threads import Sinks

__all__ = ["Event", "Kind", "Sink", "Sinks", "check_sinks", "make_sinks"]
