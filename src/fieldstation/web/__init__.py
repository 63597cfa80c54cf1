"""One panel for everything, in the browser: `mount` puts it on a control server at `/ui`."""

from fieldstation.core.plugins import lazy_names

__getattr__ = lazy_names(
    __name__,
    "web",
    {
        "PanelConfig": "fieldstation.web.config",
        "mount": "fieldstation.web.compose",
        "panel_config": "fieldstation.web.compose",
    },
)
