"""Web page and HTTP API on one or several models; the extra `serve` brings what it stands on."""
