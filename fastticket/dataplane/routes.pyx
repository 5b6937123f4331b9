# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""Which route a request takes: by its host, then by the longest path, then by its method.

Rules of this file
- Paths are compared as every service behind the gateway reads them (paths.pyx). A path that two
  services could read as paths of two routes is not *plain*: it is looked up in its raw spelling,
  and needs a ticket whatever its route says. If there is a strong route, it counts as strong.
- A path covers itself and what is below it: `/api` covers `/api` and `/api/x`, not `/apis`.
- The table is sorted when it is made, and the first route that matches is taken. First come the
  routes marked `first`, which are for every host. Then an exact host comes before a wildcard, a
  longer wildcard before a shorter one, and every host last; of one host the longest path comes
  first; of one path, routes for some methods come before the one for all methods.
- A route for GET is one for HEAD, too, and no other is.
"""

cimport cython
from libc.string cimport memchr, memcmp, memcpy

from fastticket.core.compiler cimport is_rare
from fastticket.dataplane.fieldnames cimport reads_as
from fastticket.dataplane.http1 cimport TARGET_BYTES_MAX, host_at, host_size
from fastticket.dataplane.octets cimport Span, lower
from fastticket.dataplane.paths cimport EXACT, is_normal, normal_path, stays_outside

cdef const uint8_t *ROOT = b"/"

ROUTES_MAX = ROUTES_LIMIT
AUTH = {"none": Auth.AUTH_NONE, "optional": Auth.AUTH_OPTIONAL, "required": Auth.AUTH_REQUIRED}


@cython.final
cdef class Routes:
    def __cinit__(self):
        self.texts = []

    def add(
        self, path, auth="required", group=0, *, host="", touches=True, logs_in=False, is_strong=False, has_exemption=False,
        wants_old_ticket=False, compares_old=False, waits=0, request_fields=(), response_fields=(), methods=(), first=False,
    ):
        cdef Route *route = &self.table[self.count]
        cdef bytes prefix = path.encode("ascii")
        cdef bytes name = host.removeprefix("*").encode("ascii").lower()
        if self.count == ROUTES_LIMIT or not prefix.startswith(b"/") or len(prefix) > ROUTE_PATH_MAX or len(name) > ROUTE_HOST_MAX:
            raise ValueError(
                f"at most {ROUTES_LIMIT} routes, each a path of at most {ROUTE_PATH_MAX} bytes, a host of {ROUTE_HOST_MAX}: {path}")
        if group is None and AUTH[auth] != Auth.AUTH_REQUIRED:
            raise ValueError(f"{path}: without an upstream, a ticket is all there is to answer for")
        if first and host:
            raise ValueError(f"{host}{path}: what goes first is for every host")
        if self.count and _rank(host, path, methods, first) < self._last_rank:
            raise ValueError(f"{host}{path} goes before the route before it")
        self._last_rank = _rank(host, path, methods, first)
        memcpy(route.path, <const char *>prefix, len(prefix))
        route.path_size = <uint16_t>len(prefix)
        memcpy(route.host, <const char *>name, len(name))
        route.host_size = <uint8_t>len(name)
        route.is_wildcard = host.startswith("*")
        route.auth = AUTH[auth]
        route.touches = touches
        route.logs_in = logs_in
        route.is_strong = is_strong
        route.has_exemption = has_exemption
        route.wants_old_ticket = wants_old_ticket
        route.minds_old_cookies = wants_old_ticket or compares_old
        route.is_endpoint = group is None
        route.group = group or 0
        route.waits = waits
        route.methods = self._methods(methods)
        route.is_partial = route.host_size > 0 or route.methods.size > 0
        route.request_fields = self._lines(request_fields)
        route.response_fields = self._lines(response_fields)
        self.has_strong |= is_strong
        if route.is_endpoint:
            self.endpoint = self.count
        self.count += 1

    cdef Text _lines(self, fields) except *:
        cdef bytes lines = b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in fields)
        self.texts.append(lines)
        return Text(<const uint8_t *><const char *>lines, <uint32_t>len(lines))

    cdef Text _methods(self, methods) except *:
        cdef bytes lines = b"".join(f"{name}\n".encode("ascii") for name in with_head(methods))
        self.texts.append(lines)
        return Text(<const uint8_t *><const char *>lines, <uint32_t>len(lines))

    cdef uint16_t find(self, const uint8_t *at, const Head *head, bint *is_plain) noexcept nogil:
        """The number of a request's route, or NO_ROUTE; and whether its path is plain."""
        cdef uint8_t[TARGET_BYTES_MAX] normal
        cdef const uint8_t *path = at + head.path.at
        cdef int size = <int>head.path.size
        cdef int odd_at = EXACT
        cdef Route *route
        cdef uint16_t i
        is_plain[0] = True
        if head.target_is_bare or size and path[0] == c'*':
            path = ROOT
            size = 1
        elif not is_normal(path, size):
            size = normal_path(path, size, normal, &odd_at)
            is_plain[0] = size >= 0 and (odd_at == EXACT or self._is_of_one_route(normal, size, odd_at))
            if is_plain[0]:
                path = normal
            else:
                size = <int>head.path.size
        for i in range(self.count):
            route = &self.table[i]
            if size < route.path_size or memcmp(path, route.path, route.path_size) != 0:
                continue
            if size != route.path_size and path[route.path_size] != c'/' and route.path[route.path_size - 1] != c'/':
                continue
            if is_rare(route.is_partial, 0) and not _takes(route, at, head):
                continue
            return i
        return NO_ROUTE

    cdef bint _is_of_one_route(self, const uint8_t *normal, uint32_t size, uint32_t odd_at) noexcept nogil:
        """Whether every reader takes an odd path for a path of the same route, for any host."""
        cdef uint16_t i
        for i in range(self.count):
            if not stays_outside(normal, size, odd_at, self.table[i].path, self.table[i].path_size):
                return False
        return True


def _rank(host, path, methods, first):
    """A route's place in the order of the table, as a key to sort by."""
    return (not first, host == "", host.startswith("*"), -len(host), host, -len(path), not methods)


def with_head(methods):
    """These methods, and HEAD if GET is one of them."""
    return list(dict.fromkeys([*methods, *(["HEAD"] if "GET" in methods else [])]))


cdef bint _takes(const Route *route, const uint8_t *at, const Head *head) noexcept nogil:
    """Whether a route is for the request's host and method."""
    return (route.host_size == 0 or _is_of_host(route, host_at(at, head), host_size(head))) \
        and (route.methods.size == 0 or _has_method(&route.methods, at, head.method_name))


cdef bint _has_method(const Text *methods, const uint8_t *at, Span name) noexcept nogil:
    """Whether a method is one of those. Methods are case-sensitive tokens, so none has an LF."""
    cdef const uint8_t *line = methods.at
    cdef const uint8_t *end = methods.at + methods.size
    cdef const uint8_t *stop
    while line != end:
        stop = <const uint8_t *>memchr(line, c'\n', end - line)
        if stop - line == name.size and memcmp(line, at + name.at, name.size) == 0:
            return True
        line = stop + 1
    return False


cdef bint _is_of_host(const Route *route, const uint8_t *host, uint32_t whole_size) noexcept nogil:
    """Whether a host is the route's: without its port, in any case, with or without a last dot."""
    cdef uint32_t size = 0
    cdef uint32_t start
    cdef uint32_t i
    while size < whole_size and host[size] != (c':' if host[0] != c'[' else c']'):
        size += 1
    if host[0] == c'[' and size < whole_size:
        size += 1
    if size and host[size - 1] == c'.':
        size -= 1
    if size < route.host_size or (size > route.host_size) != route.is_wildcard:
        return False
    start = size - route.host_size
    for i in range(route.host_size):
        if lower(host[start + i]) != route.host[i]:
            return False
    return True


cdef bint adds(const Text *lines, const uint8_t *at, const Field *field) noexcept nogil:
    """Whether one of these lines has the field's name, in any spelling."""
    cdef const uint8_t *line = lines.at
    cdef const uint8_t *end = lines.at + lines.size
    cdef const uint8_t *colon
    while line != end:
        colon = <const uint8_t *>memchr(line, c':', end - line)
        if reads_as(line, <uint32_t>(colon - line), at + field.name.at, field.name.size):
            return True
        line = <const uint8_t *>memchr(colon, c'\n', end - colon) + 1
    return False


def in_order(routes):
    """Routes in the order in which `Routes.add` takes them."""
    return sorted(routes, key=lambda route: _rank(route.host, route.path, route.methods, route.first))
