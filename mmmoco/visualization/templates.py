"""The templates beside this file; whatever they are given is escaped."""

from base64 import b64encode
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

#: Colours that the page defines; more series use them again.
COLOURS = 10

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.globals['colours'] = COLOURS
TEMPLATES.filters['base64'] = lambda png: b64encode(png).decode('ascii')
#: A place in pixels.
TEMPLATES.filters['px'] = '{:.1f}'.format
