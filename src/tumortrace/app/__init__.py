"""Web page and HTTP API on one or several models; the extra `serve` brings what it stands on."""

from __future__ import annotations

from tumortrace.app.extra import require_extra

require_extra()  # here, so that who imports anything of the room is told in a line what to install
