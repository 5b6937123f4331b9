"""A Streamlit page: who somebody is, and what a file that is given to it comes to."""

import hashlib
from urllib.parse import unquote

import streamlit

streamlit.title(f"hello {unquote(streamlit.context.headers.get('X-Forwarded-User', ''))}")
given = streamlit.file_uploader("a file")
if given is not None:
    streamlit.write(f"sha256 {hashlib.sha256(given.getvalue()).hexdigest()}")
