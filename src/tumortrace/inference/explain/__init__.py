"""What a model looked at: heat maps by several methods, their pictures, and whether to believe them."""

from __future__ import annotations

from tumortrace.inference.explain.measures import measure
from tumortrace.inference.explain.methods import METHODS, Method, allowed_methods, heat_map, heat_maps
from tumortrace.inference.explain.pictures import draw_sheets, explain

__all__ = ["METHODS", "Method", "allowed_methods", "draw_sheets", "explain", "heat_map", "heat_maps", "measure"]
