"""An application for gunicorn: a request body comes back whole, or in as many pieces as it has
bytes.
"""


def application(environ, start_response):
    body = environ["wsgi.input"].read()
    if environ["PATH_INFO"] == "/pieces":
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return (body[at : at + 1] for at in range(len(body)))
    start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(len(body)))])
    return [body]
