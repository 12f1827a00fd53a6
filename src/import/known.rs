//! Every directive and parameter that the importer knows, with an example and what becomes of it:
//! the reference of `docs/import.md`, and the verdict on those that have no place in a Balancer.

use super::report::Verdict;
use Verdict::{Approximated, Converted, Dropped};

/// A directive, or a parameter of one.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The name as the manuals write it.
    pub name: &'static str,
    /// The line of a configuration where it stands alone among things that are converted; empty
    /// where the name alone decides.
    pub example: &'static str,
    /// What becomes of the example.
    pub verdict: Verdict,
    /// What it becomes, how that differs, or what to do instead.
    pub meaning: &'static str,
}

const fn known(
    name: &'static str,
    example: &'static str,
    verdict: Verdict,
    meaning: &'static str,
) -> Known {
    Known { name, example, verdict, meaning }
}

/// A directive that is told by its name alone.
const fn named(name: &'static str, verdict: Verdict, meaning: &'static str) -> Known {
    known(name, "", verdict, meaning)
}

const PROCESS: &str =
    "it is about Apache's own processes, files or logs; Gibbon has flags for its own";
const FILES: &str =
    "Gibbon serves no files: let a member serve them, with a Balancer for their path";
const CLIENT_TLS: &str =
    "Gibbon speaks TLS 1.2 and 1.3 with the ciphers that are safe; there is no setting";
const FORWARD: &str = "Gibbon is no forward proxy: nothing to do";
const LOGIN: &str = "Gibbon does not ask who somebody is: let the members do it";
const BUFFERS: &str = "Gibbon streams bodies and sizes its buffers itself: nothing to do";

/// Directives.
pub const DIRECTIVES: &[Known] = &[
    // Those of the language.
    known(
        "Define",
        "Define SITE www",
        Converted,
        "replaced wherever `${NAME}` stands; `--define` adds some",
    ),
    known("Include", "", Converted, "followed, with patterns and directories"),
    known(
        "IncludeOptional",
        "IncludeOptional none/*.conf",
        Converted,
        "followed, if there are any",
    ),
    known("ServerRoot", "ServerRoot /etc/httpd", Converted, "where Include looks for files"),
    known(
        "<IfModule>",
        "<IfModule proxy_module>\n</IfModule>",
        Converted,
        "every module is taken as loaded",
    ),
    known("<IfDefine>", "<IfDefine SITE>\n</IfDefine>", Converted, "by `Define` and `--define`"),
    known("<IfVersion>", "<IfVersion >= 2.4>\n</IfVersion>", Converted, "as Apache 2.4.71"),
    known(
        "<Macro>",
        "<Macro Via $name>\nProxyVia Off\n</Macro>\nUse Via x",
        Converted,
        "replaced wherever `Use` stands",
    ),
    known(
        "Use",
        "<Macro Via $name>\nProxyVia Off\n</Macro>\nUse Via x",
        Converted,
        "as what the macro stands for",
    ),
    // Sites.
    known(
        "<VirtualHost>",
        "",
        Approximated,
        "`spec.hosts`; the first one does not get unknown hosts, they are 404. Without a ServerName, the name in it is the host, as in Ape",
    ),
    known("ServerName", "", Converted, "`spec.hosts`; https in it is `spec.reverse.scheme`"),
    known("ServerAlias", "", Converted, "`spec.hosts`; of wildcards, those such as `*.site.com`"),
    // The proxy.
    known(
        "ProxyPass",
        "ProxyPass /a/ http://a.site.com/a/",
        Converted,
        "a Balancer; what an earlier line takes already is left out. A `!` before the rule that it is about is a Balancer that answers 404",
    ),
    known(
        "ProxyPassMatch",
        "ProxyPassMatch ^/a/(.*)$ http://a.site.com/a/$1",
        Converted,
        "a Balancer, where the pattern is a prefix or one path (`pathType: Exact`); others are dropped",
    ),
    known(
        "RewriteRule",
        "RewriteRule ^/a/(.*)$ http://a.site.com/a/$1 [P]",
        Converted,
        "with `[P]` as ProxyPassMatch, with `[R]`, `[F]` or `[G]` as RedirectMatch; with `%{HTTP_HOST}` in the target for each host. Others are dropped",
    ),
    known(
        "<Proxy>",
        "<Proxy balancer://other>\nBalancerMember http://a.site.com\n</Proxy>\nProxyPass /a balancer://other",
        Converted,
        "the members of a Balancer",
    ),
    known("BalancerMember", "", Converted, "`spec.members`, in `<Proxy>` and outside it"),
    known(
        "ProxySet",
        "ProxySet balancer://b lbmethod=byrequests",
        Converted,
        "as the same parameters on ProxyPass or BalancerMember",
    ),
    known(
        "<Location>",
        "<Location /a>\nProxyPass http://a.site.com/a\n</Location>",
        Converted,
        "the path of a ProxyPass in it, and where its other directives apply: a Balancer of its own, if that is a part of a path",
    ),
    known(
        "ProxyPassReverse",
        "ProxyPassReverse / http://old.site.com/",
        Converted,
        "Gibbon derives it for members; others are `spec.reverse.locations`",
    ),
    known(
        "ProxyPassReverseCookieDomain",
        "ProxyPassReverseCookieDomain a.site.com www.site.com",
        Converted,
        "`spec.reverse.cookieDomains`",
    ),
    known(
        "ProxyPassReverseCookiePath",
        "ProxyPassReverseCookiePath /a/ /b/",
        Approximated,
        "`spec.reverse.cookiePaths`: what follows is kept, and Apache cuts it off",
    ),
    known("ProxyPreserveHost", "ProxyPreserveHost On", Converted, "`spec.preserveHost`"),
    known("ProxyTimeout", "ProxyTimeout 20", Converted, "`spec.timeouts.response`"),
    known(
        "Timeout",
        "Timeout 20",
        Converted,
        "`spec.timeouts.response`, unless ProxyTimeout is given",
    ),
    known(
        "ProxyVia",
        "ProxyVia On",
        Approximated,
        "On and Full add `Via` in both directions, always as HTTP/1.1; Block removes it from requests",
    ),
    known(
        "ProxyAddHeaders",
        "ProxyAddHeaders Off",
        Approximated,
        "Off removes X-Forwarded-*; Apache would let the client's own pass",
    ),
    known(
        "ProxyErrorOverride",
        "ProxyErrorOverride On",
        Converted,
        "`spec.errorPages` with `overrideMembers`: a line of text, where no ErrorDocument has another",
    ),
    known(
        "Header",
        "Header set X-A b",
        Converted,
        "`spec.headers.response` for fixed values; the recipe that sets a cookie with BALANCER_WORKER_ROUTE is `spec.sticky.issue`; others are dropped",
    ),
    known(
        "RequestHeader",
        "RequestHeader set X-A b",
        Converted,
        "`spec.headers.request` for fixed values; others are dropped",
    ),
    known(
        "Redirect",
        "Redirect permanent /old http://new.site.com/",
        Converted,
        "`spec.redirect`, or `spec.refuse` for 4xx and 5xx, where nothing is proxied. All of a virtual host to the same host by https is `spec.tls.redirect` of what serves that",
    ),
    known(
        "RedirectMatch",
        "RedirectMatch ^/old/(.*)$ http://new.site.com/$1",
        Converted,
        "as Redirect, where the pattern is a prefix or one path; others are dropped",
    ),
    known(
        "RedirectPermanent",
        "RedirectPermanent /old http://new.site.com/",
        Converted,
        "`spec.redirect` with status 301",
    ),
    known(
        "RedirectTemp",
        "RedirectTemp /old http://new.site.com/",
        Converted,
        "`spec.redirect` with status 302",
    ),
    known(
        "Require",
        "<Location /a>\nProxyPass http://a.site.com/a\nRequire ip 10.0.0.0/8\n</Location>",
        Converted,
        "`spec.access`, in `<Proxy>` and `<Location>`, where it is about addresses. What else it asks for, such as a user, lets nobody in: what was closed stays closed",
    ),
    known(
        "<RequireAll>",
        "<Location /a>\nProxyPass http://a.site.com/a\n<RequireAll>\nRequire all granted\nRequire not ip 10.0.0.0/8\n</RequireAll>\n</Location>",
        Converted,
        "`spec.access`",
    ),
    known(
        "<RequireAny>",
        "<Location /a>\nProxyPass http://a.site.com/a\n<RequireAny>\nRequire ip 10 192.0.2\n</RequireAny>\n</Location>",
        Converted,
        "`spec.access`",
    ),
    known(
        "<RequireNone>",
        "<Location /a>\nProxyPass http://a.site.com/a\n<RequireNone>\nRequire ip 10\n</RequireNone>\n</Location>",
        Converted,
        "`spec.access`",
    ),
    known(
        "Order",
        "<Proxy *>\nOrder deny,allow\nDeny from all\nAllow from 10.0.0.0/8\n</Proxy>",
        Converted,
        "`spec.access`",
    ),
    known(
        "Allow",
        "<Proxy *>\nOrder allow,deny\nAllow from 10\n</Proxy>",
        Converted,
        "`spec.access`",
    ),
    known("Deny", "<Proxy *>\nDeny from 10.0.0.0/8\n</Proxy>", Converted, "`spec.access`"),
    known(
        "Satisfy",
        "<Proxy *>\nSatisfy any\nAllow from 10\nDeny from all\nRequire local\n</Proxy>",
        Converted,
        "`spec.access`",
    ),
    known("LimitRequestBody", "LimitRequestBody 1048576", Converted, "`spec.limits.requestBody`"),
    known(
        "UseCanonicalName",
        "UseCanonicalName On",
        Converted,
        "`spec.reverse.host`: what ServerName says",
    ),
    known(
        "SSLEngine",
        "SSLEngine On",
        Converted,
        "`spec.tls`. Gibbon does not choose by port: the same path of a host is served alike with TLS and without",
    ),
    known(
        "SSLCertificateFile",
        "SSLEngine On\nSSLCertificateFile /etc/ssl/site.pem",
        Approximated,
        "`spec.tls.secretName`; the report has the command that makes the Secret",
    ),
    known(
        "SSLCertificateKeyFile",
        "SSLEngine On\nSSLCertificateFile /etc/ssl/site.pem\nSSLCertificateKeyFile /etc/ssl/site.key",
        Approximated,
        "the same Secret",
    ),
    known(
        "SSLCertificateChainFile",
        "SSLEngine On\nSSLCertificateFile /etc/ssl/site.pem\nSSLCertificateChainFile /etc/ssl/chain.pem",
        Approximated,
        "the same Secret, behind the certificate",
    ),
    known(
        "SSLVerifyClient",
        "SSLVerifyClient none",
        Converted,
        "`spec.tls.clientCASecret` and `clientCertificate`, also for a `<Location>`; without SSLCACertificateFile `require` lets nobody in",
    ),
    known(
        "SSLCACertificateFile",
        "SSLEngine On\nSSLVerifyClient require\nSSLCACertificateFile /etc/ssl/partners.pem",
        Approximated,
        "`spec.tls.clientCASecret`; the report has the command that makes the Secret",
    ),
    known(
        "SSLCACertificatePath",
        "SSLEngine On\nSSLVerifyClient require\nSSLCACertificatePath /etc/ssl/partners",
        Approximated,
        "as SSLCACertificateFile, of all files in it",
    ),
    named("SSLCADNRequestFile", Dropped, "clients are told the authorities of `clientCASecret`"),
    named("SSLVerifyDepth", Dropped, "chains may be as long as they are"),
    named(
        "SSLCARevocationFile",
        Dropped,
        "revoked certificates of clients are let in: use ones that end soon",
    ),
    named("SSLRequireSSL", Approximated, "`spec.tls.redirect` sends requests to TLS"),
    known(
        "SSLRequire",
        "<Proxy *>\nSSLRequire false\n</Proxy>",
        Dropped,
        "nobody is let in: Gibbon does not look into certificates",
    ),
    known(
        "ProxyHCExpr",
        "ProxyHCExpr ok {%{REQUEST_STATUS} =~ /^[234]/}",
        Converted,
        "`healthCheck.statuses`, where it is about the status alone",
    ),
    known(
        "ProxyHCTemplate",
        "ProxyHCTemplate tcp5 hcmethod=tcp hcinterval=5",
        Converted,
        "wherever `hctemplate` stands",
    ),
    // What the name alone decides.
    named("RewriteEngine", Converted, "rules are looked at one by one"),
    named(
        "RewriteCond",
        Dropped,
        "Gibbon chooses by host and path alone: let a member decide. HTTP_HOST is `spec.hosts`; HTTPS off before what sends everything to https is `spec.tls.redirect`",
    ),
    named("RewriteBase", Dropped, "Gibbon does not rewrite paths, but for a Balancer's own"),
    named("RewriteMap", Dropped, "Gibbon chooses by host and path alone: let a member decide"),
    named("SetEnv", Dropped, "Gibbon has no variables"),
    named(
        "SetEnvIf",
        Dropped,
        "Gibbon has no variables: use paths, or `spec.access` for addresses",
    ),
    named(
        "SetEnvIfNoCase",
        Dropped,
        "Gibbon has no variables: use paths, or `spec.access` for addresses",
    ),
    named("BrowserMatch", Dropped, "Gibbon has no variables"),
    named(
        "SetHandler",
        Dropped,
        "for `balancer-manager` see Gibbon's `/table` and `/metrics`; members do all else",
    ),
    named("AddHandler", Dropped, FILES),
    known(
        "ErrorDocument",
        "ErrorDocument 503 Maintenance",
        Converted,
        "`spec.errorPages`, if it is a text; files and redirects are dropped",
    ),
    named("LoadModule", Converted, "Gibbon has no modules"),
    named("Listen", Approximated, "`gibbon serve --listen`"),
    named("NameVirtualHost", Converted, "hosts are always told apart by name"),
    named("ServerSignature", Converted, "Gibbon does not say who it is"),
    named("ServerTokens", Converted, "Gibbon does not say who it is"),
    named("TraceEnable", Approximated, "TRACE always gets 405"),
    named("ProxyRequests", Converted, "Gibbon is never a forward proxy"),
    named("ProxyBlock", Dropped, FORWARD),
    named("NoProxy", Dropped, FORWARD),
    named("ProxyRemote", Dropped, FORWARD),
    named("ProxyRemoteMatch", Dropped, FORWARD),
    named("ProxyDomain", Dropped, FORWARD),
    named("AllowCONNECT", Dropped, FORWARD),
    named("ProxyMaxForwards", Dropped, "Gibbon does not count hops: nothing to do"),
    named("ProxyIOBufferSize", Dropped, BUFFERS),
    named("ProxyReceiveBufferSize", Dropped, BUFFERS),
    named("ProxyBadHeader", Dropped, "answers that are no HTTP are always 502"),
    named("ProxyStatus", Dropped, "see Gibbon's `/table` and `/metrics`"),
    named("ProxyPassInherit", Dropped, "what stands outside `<VirtualHost>` is in all of them"),
    named("ProxyPassInterpolateEnv", Dropped, "Gibbon has no variables"),
    named("BalancerInherit", Dropped, "balancers outside `<VirtualHost>` are known in all of them"),
    named("BalancerPersist", Dropped, "nothing but the Balancer changes a member: nothing to do"),
    named("BalancerGrowth", Dropped, "the file may grow: nothing to do"),
    named("Proxy100Continue", Dropped, "100-continue is passed on"),
    named("ProxyHCTPsize", Dropped, "one thread checks all members: nothing to do"),
    named(
        "AllowEncodedSlashes",
        Approximated,
        "`%2F` is passed on as it is, where no other Balancer could be meant",
    ),
    named("MergeSlashes", Dropped, "paths are passed on as they are, but for `.` and `..`"),
    named(
        "KeepAlive",
        Approximated,
        "connections of clients are always kept, see `--idle-timeout`",
    ),
    named("KeepAliveTimeout", Approximated, "`gibbon serve --idle-timeout`"),
    named(
        "MaxKeepAliveRequests",
        Dropped,
        "connections of clients have no such end: nothing to do",
    ),
    named("RequestReadTimeout", Approximated, "`gibbon serve --head-timeout` and `--body-timeout`"),
    named("LimitRequestFieldSize", Approximated, "`gibbon serve --max-head`"),
    named("LimitRequestLine", Approximated, "`gibbon serve --max-head`"),
    named("LimitRequestFields", Approximated, "`gibbon serve --max-headers`"),
    named("RemoteIPHeader", Approximated, "`gibbon serve --trusted-proxies`, and X-Forwarded-For"),
    named("RemoteIPInternalProxy", Approximated, "`gibbon serve --trusted-proxies`"),
    named("RemoteIPTrustedProxy", Approximated, "`gibbon serve --trusted-proxies`"),
    named("AuthType", Dropped, LOGIN),
    named("AuthName", Dropped, LOGIN),
    named("AuthUserFile", Dropped, LOGIN),
    named("AuthBasicProvider", Dropped, LOGIN),
    named("DocumentRoot", Dropped, FILES),
    named("Alias", Dropped, FILES),
    named("AliasMatch", Dropped, FILES),
    named("ScriptAlias", Dropped, FILES),
    named("DirectoryIndex", Dropped, FILES),
    named("Options", Dropped, FILES),
    named("AllowOverride", Dropped, FILES),
    named("AddType", Dropped, FILES),
    named("TypesConfig", Dropped, FILES),
    named("ExpiresActive", Dropped, FILES),
    named("ExpiresByType", Dropped, FILES),
    named("ExpiresDefault", Dropped, FILES),
    named("FileETag", Dropped, FILES),
    named("<Directory>", Dropped, FILES),
    named("<DirectoryMatch>", Dropped, FILES),
    named("<Files>", Dropped, FILES),
    named("<FilesMatch>", Dropped, FILES),
    known(
        "<LocationMatch>",
        "<LocationMatch ^/a/>\nProxyPass http://a.site.com\n</LocationMatch>",
        Converted,
        "as `<Location>` and ProxyPassMatch, where the pattern is a prefix; of others all is dropped, and what they shut is open: the report says so",
    ),
    named("<ProxyMatch>", Dropped, "write a `<Proxy>` of one balancer"),
    named("<If>", Dropped, "Gibbon chooses by host and path alone: let a member decide"),
    named("<ElseIf>", Dropped, "Gibbon chooses by host and path alone: let a member decide"),
    named("<Else>", Dropped, "Gibbon chooses by host and path alone: let a member decide"),
    known(
        "<Limit>",
        "<Proxy *>\n<Limit POST>\nRequire user a\n</Limit>\n</Proxy>",
        Dropped,
        "Gibbon does not choose by method: where it shuts anybody out, nobody is let in",
    ),
    known(
        "<LimitExcept>",
        "<Proxy *>\n<LimitExcept GET>\nRequire user a\n</LimitExcept>\n</Proxy>",
        Dropped,
        "Gibbon does not choose by method: where it shuts anybody out, nobody is let in",
    ),
    named("AddOutputFilterByType", Dropped, "Gibbon does not change bodies: let members compress"),
    named("AddOutputFilter", Dropped, "Gibbon does not change bodies"),
    named("SetOutputFilter", Dropped, "Gibbon does not change bodies: let members compress"),
    named("SetInputFilter", Dropped, "Gibbon does not change bodies"),
    named("Substitute", Dropped, "Gibbon does not change bodies"),
    named(
        "ProxyHTMLEnable",
        Dropped,
        "Gibbon does not change bodies: have members write relative links",
    ),
    named(
        "ProxyHTMLURLMap",
        Dropped,
        "Gibbon does not change bodies: have members write relative links",
    ),
    named("CacheEnable", Dropped, "Gibbon has no cache"),
    named("SSLProtocol", Approximated, CLIENT_TLS),
    named("SSLCipherSuite", Approximated, CLIENT_TLS),
    named("SSLHonorCipherOrder", Approximated, CLIENT_TLS),
    named("SSLSessionCache", Converted, "Gibbon resumes sessions by itself"),
    named("SSLSessionTickets", Converted, "Gibbon resumes sessions by itself"),
    named("SSLOptions", Dropped, "Gibbon has no variables"),
    known(
        "SSLProxyEngine",
        "SSLProxyEngine On",
        Converted,
        "a member by https is asked by TLS, and its certificate verified, which Apache does by SSLProxyVerify only",
    ),
    known(
        "SSLProxyVerify",
        "SSLProxyVerify require\nProxyPass /s https://a.site.com",
        Converted,
        "`none` is `upstreamTLS.insecureSkipVerify`, where anybody is taken for the member",
    ),
    known(
        "SSLProxyCheckPeerName",
        "SSLProxyCheckPeerName on\nProxyPass /s https://a.site.com",
        Converted,
        "Gibbon looks at it, unless it is off and nothing is verified",
    ),
    known(
        "SSLProxyCheckPeerCN",
        "SSLProxyCheckPeerCN on\nProxyPass /s https://a.site.com",
        Converted,
        "as SSLProxyCheckPeerName",
    ),
    known(
        "SSLProxyCheckPeerExpire",
        "SSLProxyCheckPeerExpire on\nProxyPass /s https://a.site.com",
        Converted,
        "as SSLProxyCheckPeerName",
    ),
    known(
        "SSLProxyCACertificateFile",
        "SSLProxyCACertificateFile /etc/ssl/ca.pem\nProxyPass /s https://a.site.com",
        Approximated,
        "`upstreamTLS.caSecret`; the report has the command that makes the Secret",
    ),
    known(
        "SSLProxyCACertificatePath",
        "SSLProxyCACertificatePath /etc/ssl/ca\nProxyPass /s https://a.site.com",
        Approximated,
        "as SSLProxyCACertificateFile, of all files in it",
    ),
    known(
        "SSLProxyMachineCertificateFile",
        "SSLProxyMachineCertificateFile /etc/ssl/own.pem\nProxyPass /s https://a.site.com",
        Approximated,
        "`upstreamTLS.certificateSecret`; the report has the command that makes the Secret",
    ),
    named("SSLProxyProtocol", Approximated, CLIENT_TLS),
    named("SSLProxyCipherSuite", Approximated, CLIENT_TLS),
    named("SSLProxyVerifyDepth", Dropped, "chains may be as long as they are"),
    named("SSLProxyCARevocationFile", Dropped, "revoked certificates of members are taken"),
    named("ServerAdmin", Dropped, PROCESS),
    named("ErrorLog", Dropped, PROCESS),
    named("LogLevel", Approximated, "`gibbon serve --log`"),
    named("CustomLog", Approximated, "`gibbon serve --access-log`"),
    named("TransferLog", Approximated, "`gibbon serve --access-log`"),
    named("LogFormat", Dropped, "`gibbon serve --access-log` has two forms: text and JSON"),
    named("User", Dropped, PROCESS),
    named("Group", Dropped, PROCESS),
    named("PidFile", Dropped, PROCESS),
    named("Mutex", Dropped, PROCESS),
    named("DefaultRuntimeDir", Dropped, PROCESS),
    named("HostnameLookups", Dropped, PROCESS),
    named("StartServers", Dropped, PROCESS),
    named("ServerLimit", Dropped, PROCESS),
    named("MinSpareThreads", Dropped, PROCESS),
    named("MaxSpareThreads", Dropped, PROCESS),
    named("ThreadsPerChild", Approximated, "`gibbon serve --max-connections`"),
    named("ThreadLimit", Dropped, PROCESS),
    named("MaxRequestWorkers", Approximated, "`gibbon serve --max-connections`"),
    named("MaxConnectionsPerChild", Dropped, PROCESS),
    named("EnableSendfile", Dropped, PROCESS),
    named("EnableMMAP", Dropped, PROCESS),
];

const POOL: &str = "connections to members are opened as needed, and kept for 4 s without work";

/// Parameters of a balancer: on `ProxyPass … balancer://`, or by `ProxySet` in its `<Proxy>`.
pub const BALANCER_PARAMETERS: &[Known] = &[
    known(
        "stickysession",
        "stickysession=JSESSIONID|jsessionid",
        Converted,
        "`sticky.cookie` and `sticky.parameter`",
    ),
    known(
        "stickysessionsep",
        "stickysessionsep=!",
        Converted,
        "`sticky.separator`; Off: the whole value is the route",
    ),
    known(
        "routeregex",
        "routeregex=!(.*)$",
        Converted,
        "`sticky.routeRegex`; Ape's own parameter, so the method is `Latency` throughout",
    ),
    known(
        "scolonpathdelim",
        "scolonpathdelim=On",
        Converted,
        "`sticky.parameter` reads `;name=` always",
    ),
    known("nofailover", "nofailover=On", Converted, "`sticky.failover`"),
    known(
        "lbmethod",
        "lbmethod=byrequests",
        Converted,
        "`balancing.method: RoundRobin`; bybusyness is `LeastRequests`, bytraffic nearly so, heartbeat and Ape's default `Latency`. Without it, Apache's default is `RoundRobin`",
    ),
    known(
        "maxattempts",
        "maxattempts=1",
        Converted,
        "`failover.attempts`, one more: the first counts",
    ),
    known("failonstatus", "failonstatus=503", Converted, "`failover.statuses`, from 400 on"),
    known(
        "failontimeout",
        "failontimeout=On",
        Approximated,
        "a member is out after three failures in a row",
    ),
    known(
        "forcerecovery",
        "forcerecovery=Off",
        Approximated,
        "when all members are out they are always tried",
    ),
    known(
        "timeout",
        "timeout=5",
        Dropped,
        "when all members are out they are tried at once: nothing to do",
    ),
    known("nonce", "nonce=None", Dropped, "there is no balancer-manager"),
    known("growth", "growth=5", Dropped, "the file may grow: nothing to do"),
];

/// Parameters of a member: on `BalancerMember`, or on a `ProxyPass` to a URL.
pub const MEMBER_PARAMETERS: &[Known] = &[
    known("route", "route=a", Converted, "`route`"),
    known("loadfactor", "loadfactor=3", Converted, "`weight`"),
    known(
        "status",
        "status=D",
        Converted,
        "`state`: D and S are `Disabled`, H is `Standby`, R is `Spare`, N is `Draining`; E and I are not kept",
    ),
    known("redirect", "redirect=b", Converted, "`failoverRoute`"),
    known("lbset", "lbset=1", Converted, "`tier`"),
    known(
        "retry",
        "retry=10",
        Approximated,
        "`failover.excludeFor`, one for all members, which grows with each failure in a row",
    ),
    known("timeout", "timeout=5", Converted, "`timeouts.response`, one for all members"),
    known(
        "connectiontimeout",
        "connectiontimeout=500ms",
        Converted,
        "`timeouts.connect`, one for all members",
    ),
    known(
        "ping",
        "ping=1",
        Dropped,
        "members are not asked before each request: what a member has not seen goes to another, and one \
         that hangs is found by `timeouts.response` or a `healthCheck`. A client's own Expect is passed on",
    ),
    known("keepalive", "keepalive=On", Approximated, POOL),
    known("min", "min=1", Approximated, POOL),
    known(
        "max",
        "max=20",
        Approximated,
        "`maxInFlight`, of each address and one Gibbon; Apache's is of each of its processes",
    ),
    known("smax", "smax=5", Approximated, POOL),
    known("ttl", "ttl=60", Approximated, POOL),
    known(
        "acquire",
        "acquire=100",
        Converted,
        "`balancing.queueFor` where there is `max`, one for all members; else nothing waits",
    ),
    known(
        "disablereuse",
        "disablereuse=On",
        Approximated,
        "connections are used again; one that dies so is replaced",
    ),
    known("enablereuse", "enablereuse=On", Converted, "connections are used again"),
    known("upgrade", "upgrade=websocket", Converted, "every Balancer carries WebSockets"),
    known("flushpackets", "flushpackets=on", Converted, "bodies are passed on as they come"),
    known("flushwait", "flushwait=10", Converted, "bodies are passed on as they come"),
    known("iobuffersize", "iobuffersize=8192", Dropped, BUFFERS),
    known("receivebuffersize", "receivebuffersize=8192", Dropped, BUFFERS),
    known("responsefieldsize", "responsefieldsize=8192", Dropped, BUFFERS),
    known(
        "addressttl",
        "addressttl=60",
        Converted,
        "names are asked for again as DNS says, after 30 s at the latest",
    ),
    known("secret", "secret=x", Dropped, "Gibbon speaks HTTP to members, not AJP"),
    known(
        "hcmethod",
        "hcmethod=GET",
        Converted,
        "`healthCheck`, one for all members: by what is spoken with each, or `type: Tcp`; CPING is dropped. Only results in a row count, and where all members fail they are tried",
    ),
    known(
        "hcuri",
        "hcuri=/health",
        Converted,
        "`healthCheck.path`, with the member's own before it",
    ),
    known("hcinterval", "hcinterval=5", Converted, "`healthCheck.interval`"),
    known("hcpasses", "hcpasses=2", Converted, "`healthCheck.successThreshold`"),
    known("hcfails", "hcfails=3", Converted, "`healthCheck.failureThreshold`"),
    known("hcexpr", "hcexpr=ok", Converted, "`healthCheck.statuses`"),
    known("hctemplate", "hctemplate=t", Converted, "as the parameters of the template"),
];

/// Looks a name up, whatever its case.
#[must_use]
pub fn find(list: &'static [Known], name: &str) -> Option<&'static Known> {
    list.iter().find(|known| known.name.eq_ignore_ascii_case(name))
}
