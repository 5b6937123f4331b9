"""Settings of oauth2-proxy that have no counterpart here, each with the reason or with what to do
instead.
"""

from __future__ import annotations

from collections.abc import Mapping

LOGIN = "the login is an application's here: reference/headers, X-Ticket-Login"
WHO = "who may log in is decided by the application that logs in; who is logged in already is not asked again"
TOKENS = "upstreams get the user's name, and no token or password"
PAGES = "pages for the login are the application's"
TLS = "TLS ends at the load balancer before the gateway"
LOGS = "the gateway's logs have fixed forms: how-to/operate"

LEFT: Mapping[str, str] = {
    **dict.fromkeys(("provider", "provider_display_name", "provider_ca_files", "client_id", "client_secret"), LOGIN),
    **dict.fromkeys(("client_secret_file", "redirect_url", "relative_redirect_url", "scope", "login_url"), LOGIN),
    **dict.fromkeys(("redeem_url", "profile_url", "validate_url", "resource", "prompt", "approval_prompt"), LOGIN),
    **dict.fromkeys(("oidc_issuer_url", "oidc_jwks_url", "oidc_email_claim", "oidc_groups_claim"), LOGIN),
    **dict.fromkeys(("oidc_extra_audiences", "oidc_audience_claims", "code_challenge_method", "user_id_claim"), LOGIN),
    **dict.fromkeys(("insecure_oidc_allow_unverified_email", "insecure_oidc_skip_issuer_verification"), LOGIN),
    **dict.fromkeys(("skip_oidc_discovery", "backend_logout_url", "encode_state", "whitelist_domains"), LOGIN),
    **dict.fromkeys(("skip_jwt_bearer_tokens", "extra_jwt_issuers", "bearer_token_login_fallback"), LOGIN),
    **dict.fromkeys(("email_domains", "authenticated_emails_file", "htpasswd_file", "allowed_groups"), WHO),
    **dict.fromkeys(("allowed_roles", "htpasswd_user_groups", "github_org", "github_team", "github_repo"), WHO),
    **dict.fromkeys(("github_users", "gitlab_groups", "gitlab_projects", "google_groups", "azure_tenant"), WHO),
    **dict.fromkeys(("keycloak_groups", "bitbucket_team", "bitbucket_repository"), WHO),
    **dict.fromkeys(("pass_access_token", "pass_authorization_header", "set_authorization_header"), TOKENS),
    **dict.fromkeys(("pass_basic_auth", "basic_auth_password", "set_basic_auth", "signature_key"), TOKENS),
    "session_cookie_minimal": TOKENS,
    **dict.fromkeys(("skip_provider_button", "custom_templates_dir", "custom_sign_in_logo", "banner"), PAGES),
    **dict.fromkeys(("footer", "display_htpasswd_form", "show_debug_on_error", "errors_to_info_log"), PAGES),
    **dict.fromkeys(("https_address", "tls_cert_file", "tls_key_file", "tls_min_version", "force_https"), TLS),
    **dict.fromkeys(("tls_cipher_suites", "ssl_insecure_skip_verify", "ssl_upstream_insecure_skip_verify"), TLS),
    **dict.fromkeys(("standard_logging", "standard_logging_format", "auth_logging", "auth_logging_format"), LOGS),
    **dict.fromkeys(("request_logging_format", "exclude_logging_paths", "silence_ping_logging"), LOGS),
    **dict.fromkeys(("logging_max_size", "logging_max_age", "logging_max_backups", "logging_compress"), LOGS),
    **dict.fromkeys(("logging_local_time", "request_id_header"), LOGS),
    "cookie_secret": "keys are made anew: fastticket keygen; the exchange reads this from [[migration]] key_file",
    "cookie_secret_file": "keys are made anew: fastticket keygen; for the exchange it is [[migration]] key_file",
    "trusted_ips": "no address is let in without a ticket",
    "cookie_refresh": "no token is refreshed: a session ends absolute_lifetime_s after its login, used or not",
    "cookie_httponly": "the cookie is always HttpOnly",
    "cookie_csrf_per_request": LOGIN,
    "cookie_csrf_expire": LOGIN,
    "api_routes": "a browser is sent to login_url, everything else gets a 401: no list is needed",
    "force_json_errors": "a browser is sent to login_url, everything else gets a 401",
    "real_client_ip_header": "X-Forwarded-For and Forwarded are read: reference/configuration, trusted_proxies",
    "metrics_secure_address": "the admin listener has the metrics: [gateway] admin",
    "metrics_tls_cert_file": TLS,
    "metrics_tls_key_file": TLS,
    "pass_host_header": "the Host of the request is passed on",
    "proxy_websockets": "WebSockets are passed on: [gateway] upgrades",
    "flush_interval": "responses are passed on as they come",
    "ping_user_agent": "the admin listener has /healthz",
    "gcp_healthchecks": "the admin listener has /healthz",
    "redis_insecure_skip_tls_verify": "certificates are checked: give ssl_ca_certs in the store's URL",
    "redis_connection_idle_timeout": "connections to the store are kept alive",
}
