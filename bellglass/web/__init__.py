"""The page: `static/` is what a browser runs, for the live page, the report and playback alike."""
