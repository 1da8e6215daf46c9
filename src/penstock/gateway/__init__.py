"""The core: start, read and cancel generations. It knows neither HTTP nor any wire format."""
