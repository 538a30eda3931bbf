"""A model traced into a flat list of ops: tracing (graph), rewrites (fusion), text (show)."""
