"""Request headers that proxies and identity-aware products set and services believe, by family with its source.

A client that sends one speaks in the name of a proxy, so it goes no further. Names are lower case with hyphens; each
stands for every spelling that a server folds into them (`header_names.spelling`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HeaderFamily:
    """The headers of one product or standard, and the page that names them."""

    product: str
    source: str
    names: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()


FAMILIES = (
    # ---- addresses and what else a proxy says of a connection ----
    HeaderFamily(
        "HTTP: Forwarded, its older forms, and the names that frameworks look through",
        "https://www.rfc-editor.org/rfc/rfc7239",
        (
            *("forwarded", "forwarded-for", "forwarded-proto", "forwarded-host", "x-forwarded", "x-forward-for"),
            *("x-forwarder-for", "x-forward", "x-forward-proto", "x-forward-host", "client-ip", "clientip"),
            *("x-client-ip", "x-client-host", "x-client-port", "x-client-address", "x-clientip", "x-cluster-client-ip"),
            *("cluster-client-ip", "x-originating-ip", "x-origin-ip", "x-source-ip", "x-ip", "x-user-ip", "x-true-ip"),
            *("x-true-client-ip", "true-client-ip", "true-ip", "real-ip", "source-ip", "originating-ip", "x-proxy"),
            *("x-custom-ip-authorization", "x-server-ip", "x-peer-ip", "x-caller-ip", "x-host", "x-scheme", "x-proto"),
            *("x-protocol", "x-url-scheme", "front-end-https", "x-front-end-https", "x-https", "x-ssl", "x-port"),
            *("x-country", "x-country-code", "x-geo-country", "x-geoip-country", "z-forwarded-for", "ns-client-ip"),
            *("x-http-host-override", "x-host-override", "x-backend-host", "x-backend-server", "proxy-host"),
        ),
        ("x-real-", "x-forwarded-", "x-original-", "x-remote-", "remote-", "http-x-", "http-client-", "http-forwarded"),
    ),
    HeaderFamily("CGI: httpoxy", "https://httpoxy.org/", ("proxy", "http-proxy")),
    HeaderFamily(
        "Envoy and Istio",
        "https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers",
        ("x-jwt-payload", "x-istio-attributes"),
        ("x-envoy-",),
    ),
    HeaderFamily("Linkerd", "https://linkerd.io/2/reference/", (), ("l5d-",)),
    HeaderFamily("Dapr", "https://docs.dapr.io/reference/api/", (), ("dapr-caller-", "dapr-callee-")),
    HeaderFamily(
        "Cloudflare, Access too",
        "https://developers.cloudflare.com/fundamentals/reference/http-headers/",
        (),
        ("cf-",),
    ),
    HeaderFamily("Akamai", "https://techdocs.akamai.com/property-mgr/docs/origin-server", (), ("akamai-", "x-akamai-")),
    HeaderFamily(
        "Fastly", "https://www.fastly.com/documentation/reference/http/http-headers/", (), ("fastly-", "x-fastly-")
    ),
    HeaderFamily("Fly.io", "https://fly.io/docs/networking/request-headers/", (), ("fly-",)),
    HeaderFamily("Vercel", "https://vercel.com/docs/headers/request-headers", (), ("x-vercel-",)),
    HeaderFamily("Netlify", "https://docs.netlify.com/edge-functions/api/", (), ("x-nf-",)),
    HeaderFamily("Railway", "https://docs.railway.com/networking/public-networking", (), ("x-railway-",)),
    HeaderFamily("DigitalOcean", "https://docs.digitalocean.com/products/app-platform/", ("do-connecting-ip",)),
    HeaderFamily("Imperva", "https://docs.imperva.com/", (), ("x-incap-", "incap-")),
    HeaderFamily("Sucuri", "https://docs.sucuri.net/website-firewall/", (), ("x-sucuri-",)),
    HeaderFamily(
        "Content networks: Alibaba Cloud, Tencent Cloud, bunny.net",
        "https://www.alibabacloud.com/help/en/cdn/user-guide/obtain-originating-ip-addresses",
        ("cdn-src-ip", "cdn-real-ip", "cdn-requestcountrycode", "x-cdn-src-ip", "cdn-client-ip"),
        ("ali-cdn-", "x-alicdn-"),
    ),
    HeaderFamily(
        "Azure Front Door, Application Gateway, IIS ARR, Web Application Proxy",
        "https://learn.microsoft.com/azure/frontdoor/front-door-http-headers-protocol",
        ("disguised-host", "was-default-hostname", "x-ms-proxy", "x-ms-endpoint-absolute-path", "x-ms-client-ip"),
        ("x-azure-", "x-arr-", "x-ms-forwarded-", "x-appgw-"),
    ),
    HeaderFamily(
        "Azure App Service authentication",
        "https://learn.microsoft.com/azure/app-service/configure-authentication-user-identities",
        (),
        ("x-ms-client-principal", "x-ms-token-"),
    ),
    HeaderFamily(
        "AWS: Application Load Balancer, Verified Access, API Gateway, CloudFront",
        "https://docs.aws.amazon.com/elasticloadbalancing/latest/application/listener-authenticate-users.html",
        ("x-amzn-tls-version", "x-amzn-tls-cipher-suite", "x-amzn-apigateway-api-id", "x-amzn-vpce-id"),
        ("x-amzn-oidc-", "x-amzn-mtls-", "x-amzn-ava-", "x-amzn-request-context", "cloudfront-"),
    ),
    HeaderFamily(
        "Google: Identity-Aware Proxy, App Engine, API Gateway",
        "https://cloud.google.com/iap/docs/identity-howto",
        ("x-endpoint-api-userinfo", "x-apigateway-api-userinfo", "x-proxyuser-ip", "x-gclb-client-ip"),
        ("x-goog-authenticated-user-", "x-goog-iap-", "x-appengine-", "x-client-geo-"),
    ),
    # ---- certificates ----
    HeaderFamily(
        "Client certificates",
        "https://www.rfc-editor.org/rfc/rfc9440",
        ("x-client-dn", "x-client-cn", "x-client-verify", "x-client-verified", "x-client-san", "x-client-subject"),
        ("client-cert", "x-client-cert", "x-clientcert", "x-cert", "tls-client-", "x-tls-client-", "x-mtls-"),
    ),
    HeaderFamily(
        "Apache mod_ssl, ingress-nginx, HAProxy, Tomcat's SSLValve",
        "https://httpd.apache.org/docs/2.4/mod/mod_ssl.html#envvars",
        (),
        ("ssl-", "x-ssl-", "x-haproxy-"),
    ),
    HeaderFamily(
        "WebLogic and WebSphere plug-ins",
        "https://docs.oracle.com/middleware/1221/webtier/develop-plugin/",
        ("proxy-ssl-id", "proxy-auth-cert"),
        ("wl-", "proxy-client-", "-ws"),
    ),
    HeaderFamily(
        "SAP Web Dispatcher", "https://help.sap.com/docs/", ("clientprotocol",), ("x-sap-webdisp-", "x-sap-web-disp-")
    ),
    # ---- people ----
    HeaderFamily(
        "REMOTE_USER by header, Kubernetes' authenticating proxy and impersonation",
        "https://kubernetes.io/docs/reference/access-authn-authz/authentication/",
        ("auth-user", "auth-type", "logon-user", "http-remote-user"),
        ("impersonate-",),
    ),
    HeaderFamily(
        "oauth2-proxy",
        "https://oauth2-proxy.github.io/oauth2-proxy/configuration/overview",
        ("gap-auth",),
        ("x-auth-request-",),
    ),
    HeaderFamily(
        "Louketo and Keycloak Gatekeeper, nginx auth_request",
        "https://github.com/louketo/louketo-proxy/blob/master/docs/user-guide.md",
        (
            *("x-auth-audience", "x-auth-email", "x-auth-expiresin", "x-auth-group", "x-auth-groups", "x-auth-name"),
            *("x-auth-role", "x-auth-roles", "x-auth-subject", "x-auth-user", "x-auth-userid", "x-auth-user-id"),
            *("x-auth-username",),
        ),
    ),
    HeaderFamily(
        "Authelia", "https://www.authelia.com/integration/trusted-header-sso/introduction/", (), ("x-authelia-",)
    ),
    HeaderFamily("authentik", "https://docs.goauthentik.io/add-secure-apps/providers/proxy/", (), ("x-authentik-",)),
    HeaderFamily("Pomerium", "https://www.pomerium.com/docs/capabilities/getting-users-identity", (), ("x-pomerium-",)),
    HeaderFamily(
        "Ory Oathkeeper and others: the person in plain names",
        "https://www.ory.sh/docs/oathkeeper/pipeline/mutator",
        (
            *("x-user", "x-user-id", "x-userid", "x-user-name", "x-username", "x-user-email", "x-user-mail", "x-email"),
            *("x-user-role", "x-user-roles", "x-user-group", "x-user-groups", "x-group", "x-groups", "x-role"),
            *("x-roles", "x-subject", "x-user-dn", "x-user-info", "x-userinfo", "x-user-claims", "x-claims"),
            *("x-id-token", "x-identity", "x-principal"),
            *("x-jwt-assertion", "x-sso-user", "x-organizr-user", "x-ldap-user"),
        ),
        ("x-authenticated-", "x-oidc-", "x-saml-", "x-claim-", "x-jwt-claim-", "x-token-claim-"),
    ),
    HeaderFamily("Vouch", "https://github.com/vouch/vouch-proxy", (), ("x-vouch-",)),
    HeaderFamily("Tailscale", "https://tailscale.com/kb/1312/serve", (), ("tailscale-",)),
    HeaderFamily(
        "Teleport", "https://goteleport.com/docs/enroll-resources/application-access/jwt/", (), ("teleport-",)
    ),
    HeaderFamily(
        "Kong and Apache APISIX",
        "https://developer.konghq.com/plugins/",
        ("x-anonymous-consumer",),
        ("x-consumer-", "x-credential-", "x-kong-"),
    ),
    HeaderFamily("Grafana's auth proxy, Gitea", "https://grafana.com/docs/grafana/latest/", (), ("x-webauth-",)),
    HeaderFamily("Mimir, Loki, Tempo, Cortex", "https://grafana.com/docs/mimir/latest/", ("x-scope-orgid",)),
    HeaderFamily("OpenSearch proxy authentication", "https://docs.opensearch.org/latest/security/", (), ("x-proxy-",)),
    HeaderFamily(
        "Apache NiFi",
        "https://nifi.apache.org/docs.html",
        (),
        ("x-proxied-", "x-proxiedentit", "x-proxyhost", "x-proxyscheme", "x-proxyport", "x-proxycontextpath"),
    ),
    HeaderFamily("Posit Workbench", "https://docs.posit.co/ide/server-pro/", (), ("x-rstudio-", "x-rsc-")),
    HeaderFamily(
        "Broadcom SiteMinder", "https://techdocs.broadcom.com/", ("smuser", "smuserdn", "smsession"), ("sm-", "smsso-")
    ),
    HeaderFamily("IBM Verify Access (WebSEAL)", "https://www.ibm.com/docs/en/sva", (), ("iv-",)),
    HeaderFamily("Oracle Access Manager", "https://docs.oracle.com/en/middleware/idm/", (), ("oam-", "osso-")),
    HeaderFamily(
        "Shibboleth",
        "https://shibboleth.atlassian.net/wiki/spaces/SP3/pages/2065335062/Apache",
        ("eppn", "affiliation", "unscoped-affiliation", "entitlement", "targeted-id", "persistent-id"),
        ("shib-", "x-shib-", "ajp-"),
    ),
    HeaderFamily("mod_auth_openidc", "https://github.com/OpenIDC/mod_auth_openidc/wiki", (), ("oidc-",)),
    HeaderFamily("mod_auth_mellon", "https://github.com/latchset/mod_auth_mellon", (), ("mellon-",)),
    HeaderFamily("mod_auth_cas", "https://github.com/apereo/mod_auth_cas", (), ("cas-",)),
    HeaderFamily(
        "Zitadel behind a proxy",
        "https://zitadel.com/docs/self-hosting/manage/custom-domain",
        ("x-zitadel-forwarded", "x-zitadel-instance-host", "x-zitadel-public-host"),
    ),
    HeaderFamily(
        "Telephone networks",
        "https://datatracker.ietf.org/doc/html/rfc3325",
        (
            "msisdn",
            "x-msisdn",
            "x-up-calling-line-id",
            "x-nokia-msisdn",
            "x-wap-msisdn",
            "p-asserted-identity",
            "p-preferred-identity",
        ),
    ),
    # ---- another resource, or another method ----
    HeaderFamily(
        "IIS URL Rewrite, Zend, Symfony: another path than the one that was judged",
        "https://symfony.com/blog/cve-2018-14773-remove-support-for-legacy-and-risky-http-headers",
        (
            *("x-rewrite-url", "x-rewrite-uri", "x-rewrite-path", "x-override-url", "x-http-path-override"),
            *("x-http-url-override", "x-path-override", "x-http-destinationurl", "proxy-url"),
            *("request-uri", "x-request-uri", "x-request-url", "x-request-path", "base-url", "x-base-url", "http-url"),
            *("unencoded-url", "x-script-name", "script-name", "x-script-url", "path-info", "x-path-info"),
            *("x-orig-url", "x-orig-path"),
            *("x-sendfile", "x-sendfile-type", "x-lighttpd-send-file", "x-reproxy-url", "x-reproxy-file"),
        ),
    ),
    HeaderFamily(
        "nginx X-Accel",
        "https://www.nginx.com/resources/wiki/start/topics/examples/x-accel/",
        (),
        ("x-accel-",),
    ),
)
NAMES = frozenset(name for family in FAMILIES for name in family.names)
PREFIXES = tuple(sorted({prefix for family in FAMILIES for prefix in family.prefixes}))
