"""Derivatives through training: what the weight of each sample does to a measurement at the end."""

from retrac.unrolled.backward import Adjoint, Piece, Step, step_back
from retrac.unrolled.bank import ReplayBank
from retrac.unrolled.state import Layout, State
from retrac.unrolled.sweep import Segments, Swept, back, forward, least_states
from retrac.unrolled.updates import Update, clip
from retrac.unrolled.window import Window

__all__ = [
    "Adjoint",
    "Layout",
    "Piece",
    "ReplayBank",
    "Segments",
    "State",
    "Step",
    "Swept",
    "Update",
    "Window",
    "back",
    "clip",
    "forward",
    "least_states",
    "step_back",
]
