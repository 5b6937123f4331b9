"""The auth endpoint: what a gateway in front says of the request that it asks about."""

from collections.abc import Mapping

#: Gateways that may ask at the endpoint, as `Proxy` has them in `front`, to how they describe a
#: request.
FRONTS: Mapping[str, int]
