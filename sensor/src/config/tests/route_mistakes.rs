//! Every kind of mistake in a route or an issuer, with the line and column that it is told at.

use super::mistakes::{ISSUER, ROUTE, in_issuer, in_login, in_route, in_service};

#[test]
fn routes() {
    let again = "[[service.route]]\nclass = \"other\"\nmethods = [\"POST\", \"GET\"]\npath = \"/m/{other}\"";
    in_route(
        again,
        "11:8: GET `/m/{other}` is already a route of this service. Remove one of the two; the other stands in line 7.",
    );
    let named = "name = \"x\"\n[[service.route]]\nname = \"x\"\nclass = \"other\"\nmethods = \"GET\"\npath = \"/x\"";
    in_route(named, "10:8: two routes of this service are named `x`. Write another `name`; line 8 has this one.");
    let route = |methods: &str, path: &str| {
        format!("[[service.route]]\nclass = \"other\"\nmethods = {methods}\npath = \"{path}\"")
    };
    in_service(&route("[]", "/"), "6:1: `methods` is empty.");
    in_service(&route("\"GETT\"", "/"), "6:11: `GETT` is not a method. Did you mean `GET`.");
    in_service(&route("\"purge\"", "/"), "6:11: `purge` is not a method. Write the method in capitals");
    in_service(&route("[\"GET\", \"GET\"]", "/"), "6:19: `service.route.methods` names the same thing twice.");
    for (path, what) in [
        ("m", "does not begin with `/`"),
        ("/a//b", "has an empty segment"),
        ("/a/", "has an empty segment"),
        ("/a/../b", "has a `.` or `..` segment"),
        ("/a/*", "has the segment `*`"),
        ("/a?b=1", "has the character `?`"),
        ("/%41", "has the character `%`"),
        ("/a/x{id}", "has a brace inside a segment"),
        ("/{a b}", "has the character ` `"),
        ("/{a.b}", "has the parameter `{a.b}`"),
        ("/{a}/{a}", "has the parameter `{a}` twice"),
    ] {
        in_service(&route("\"GET\"", path), &format!("7:8: the path template `{path}` {what}."));
    }
}

#[test]
fn accounts() {
    in_route("account = \"path:idd\"", "8:11: the path template has no parameter `idd`. Did you mean `id`.");
    in_route("account = [\"issuance\", \"sub\"]", "8:24: `sub` does not say where an account stands.");
    in_route("account = \"claim:\"", "8:11: `claim:` does not say where an account stands.");
    in_route("account = \"query:a b\"", "8:11: `a b` is not a query parameter name.");
    in_route("account = []", "8:1: `account` is empty.");
    in_route("account = [\"issuance\", \"issuance\"]", "8:24: `service.route.account` names the same thing twice.");
    let secret = format!("[service.credentials]\nquery = [\"t\"]\n{ROUTE}account = \"query:t\"");
    in_service(&secret, "10:11: the query parameter `t` carries a credential, which is not kept.");
}

#[test]
fn outcomes() {
    in_route("outcomes = 1", "8:12: `service.route.outcomes` is a whole number, not an array.");
    in_route("outcomes = [{ outcome = \"mis\" }]", "8:25: unknown outcome `mis`. Did you mean `miss`.");
    for bad in ["99", "600", "\"2x\"", "\"299-200\"", "true"] {
        in_route(
            &format!("outcomes = [{{ outcome = \"read\", status = {bad} }}]"),
            "8:42: `service.route.outcomes.status` is not a set of status codes.",
        );
    }
    in_route(
        "outcomes = [{ outcome = \"read\", location = \"\" }]",
        "8:44: `service.route.outcomes.location` is empty.",
    );
    let unreached = "outcomes = [{ outcome = \"read\" }, { outcome = \"miss\", status = 404 }]";
    in_route(unreached, "8:35: this predicate is never reached");
}

#[test]
fn issuing() {
    in_login("account_pointer = \"member\"", "9:19: `member` is not a JSON pointer.");
    in_login("account_pointer = \"/a~2\"", "9:19: `/a~2` is not a JSON pointer.");
    in_login("presents = [\"json:/t\"]", "9:1: `presents` has no meaning on a route of class `login`.");
    in_login(
        "success = { location = \"/a/b\", location_not = \"/a\" }",
        "9:32: `location_not` `/a` excludes every `location` `/a/b`.",
    );
    in_login(
        "success = { json = { pointer = \"/a\", value = [1] } }",
        "9:46: `service.route.success.json.value` cannot be compared",
    );
    in_route("issues = \"json:/t\"", "8:1: `issues` has no meaning on a route of class `account_read`.");
    let route = |class: &str, rest: &str| {
        format!("[[service.route]]\nclass = \"{class}\"\nmethods = \"POST\"\npath = \"/x\"\n{rest}")
    };
    in_service(&route("login", ""), "4:1: this login route issues nothing");
    in_service(&route("refresh", ""), "4:1: this refresh route issues nothing");
    for (source, what) in [
        ("cookie:S", "`cookie:S` is not a place in a response"),
        ("set-cookie:S", "the cookie `S` is not declared"),
        ("json:t", "`t` is not a JSON pointer"),
        ("header:Set-Cookie", "the header `Set-Cookie` cannot be named"),
        ("header:", "the name of the header is empty"),
    ] {
        in_service(&route("login", &format!("issues = \"{source}\"")), &format!("8:10: {what}"));
    }
    in_service(
        &route("login", "issues = [\"header:a\", \"header:b\", \"header:c\"]"),
        "8:35: more than 2 response headers",
    );
    let refresh = |source: &str| route("refresh", &format!("issues = \"json:/t\"\npresents = \"{source}\""));
    in_service(&refresh("body:/t"), "9:12: `body:/t` is not a place in a request.");
    in_service(&refresh("json:t"), "9:12: `t` is not a JSON pointer.");
    in_service(&refresh("form:"), "9:12: the name of the form field is empty.");
}

#[test]
fn issuers() {
    in_issuer("observed = \"every\"", "8:12: unknown value `every` of `observed`.");
    in_issuer("kids = [\"\"]", "8:9: an empty `kid` names no key.");
    in_issuer("kids = [{ kid = \"a\", retired = 5 }]", "8:32: `service.issuer.kids.retired` is not a date.");
    in_issuer(
        "kids = [{ kid = \"a\", retired = 2026-01-01T00:00:00 }]",
        "8:32: `service.issuer.kids.retired` is not a date.",
    );
    in_issuer(
        "observed = \"all\"\nconfirmed = { sight = 99.8, by = \"k\", on = 2026-01-31 }",
        "9:23: `service.issuer.confirmed.sight` is not a share.",
    );
    in_issuer(
        "observed = \"all\"\nconfirmed = { sight = 1, by = \"k\", on = \"yesterday\" }",
        "9:41: `service.issuer.confirmed.on` is not a date.",
    );
    in_issuer(&ISSUER.replace("\"i\"", "\"j\""), "8:1: the issuers `i` and `j` claim the same credentials.");
    in_issuer(
        &format!("{ISSUER}iss = \"other\""),
        "9:8: two issuers of this service are named `i`. Write another `name`; line 5 has this one.",
    );
    let issuer = |kind: &str, rest: &str| {
        format!("[[service.issuer]]\nname = \"i\"\nkind = \"{kind}\"\nmax_lifetime = \"1h\"\n{rest}")
    };
    in_service(&issuer("paseto", ""), "6:8: unknown kind `paseto`. Write one of `jwt`, `opaque`.");
    in_service(&issuer("opaque", "iss = \"a\""), "8:1: `iss` is part of a JWT, and this issuer is `opaque`.");
    in_service(&issuer("opaque", "kids = [\"a\"]"), "8:1: `kids` is part of a JWT, and this issuer is `opaque`.");
}
