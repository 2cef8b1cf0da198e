"""What the daemon tells whoever watches it: a glance at both servers, metrics, and endpoints over HTTP."""
