//! Translates a site of version 2: the way of registry requests and of others through its
//! directives, and each directive's place in the report.

mod flow;
mod known;
mod login;
mod matcher;
pub(super) mod options;
mod proxy;
mod tls;

use self::flow::{FlowEvent, FlowStep, steps};
use self::matcher::{NamedMatchers, Relevance, RequestClass, is_matcher, relevance};
use super::address::{SiteAddress, SiteScheme};
use super::context::SiteContext;
use super::headers;
use super::lexer::CaddyToken;
use super::parser::Statement;
use super::site::SiteCertificate;
use super::values;

/// Translates the directives of a site.
pub(super) fn site(directives: &[Statement], context: &mut SiteContext<'_>) {
    let mut matchers = NamedMatchers::default();
    matchers.collect(directives);
    if !context.process.trusted_proxies.is_empty() {
        matchers.distrust_networks();
    }
    for statement in directives {
        directive(statement, &matchers, context);
    }
    let of_registry = steps(directives, RequestClass::Registry, &matchers);
    let of_pages = steps(directives, RequestClass::Pages, &matchers);
    barriers(&of_registry, context);
    registry(&of_registry, &of_pages, context);
    left_out(directives, context);
    ports(context);
}

/// Directives that need no knowledge of the way of requests.
fn directive(statement: &Statement, matchers: &NamedMatchers, context: &mut SiteContext<'_>) {
    let name = statement.name();
    match name {
        "handle" | "handle_path" | "route" => {
            for inner in statement.children() {
                directive(inner, matchers, context);
            }
            context.redundant(statement, "its directives are in this report");
        }
        "tls" => tls::certificate(statement, context),
        "header" => response_headers(statement, context),
        "request_header" => {
            let arguments = without_matcher(statement);
            headers::request(statement, &arguments, context);
        }
        "request_body" => request_body(statement, matchers, context),
        "log" => log(statement, context),
        "bind" => context.bind(statement),
        "redir" => {
            let is_https = statement
                .arguments()
                .iter()
                .any(|one| one.starts_with("https://{host}"));
            let text = "moorgate redirects nothing but plain HTTP to https";
            if is_https {
                context.redundant(statement, text);
            } else if relevance(&matchers.of(statement), RequestClass::Registry) == Relevance::Never
            {
                context.dropped(statement, text);
            }
        }
        "respond" | "abort" | "error"
            if relevance(&matchers.of(statement), RequestClass::Registry) == Relevance::Never =>
        {
            let text = "moorgate answers no pages itself; [browser] gets all paths outside of /v2/";
            context.decision(statement, text);
            if is_refusal(statement) {
                context.site.left_out.push(super::report::shown(statement));
            }
        }
        name if name.starts_with('@') => {
            context.redundant(statement, "see the directives that use it")
        }
        name if let Some((_, reason)) = known::DROPPED.iter().find(|(known, _)| *known == name) => {
            context.dropped(statement, *reason);
        }
        // Of the flow of requests.
        _ => {}
    }
}

/// Whether a page is refused, rather than answered with a text.
fn is_refusal(statement: &Statement) -> bool {
    let arguments = without_matcher(statement);
    let refuses = |code: &&str| code.len() == 3 && code.starts_with(['4', '5']);
    statement.name() != "respond" || arguments.iter().any(refuses) || statement.block.is_some()
}

fn without_matcher(statement: &Statement) -> Vec<&str> {
    let mut arguments = statement.arguments();
    if arguments
        .first()
        .is_some_and(|argument| is_matcher(argument))
    {
        arguments.remove(0);
    }
    arguments
}

fn response_headers(statement: &Statement, context: &mut SiteContext<'_>) {
    if let Some(name) = without_matcher(statement).first() {
        headers::response(statement, name, context);
    }
    for line in statement
        .children()
        .iter()
        .filter(|line| line.name() != "defer")
    {
        headers::response(line, line.name(), context);
    }
}

fn request_body(statement: &Statement, matchers: &NamedMatchers, context: &mut SiteContext<'_>) {
    let reach = relevance(&matchers.of(statement), RequestClass::Registry);
    for line in statement.children() {
        match (line.name(), reach) {
            ("max_size", Relevance::Always) => {
                let size = line.argument(1).and_then(values::decimal_size);
                context.body_limit(line, size);
            }
            ("max_size", Relevance::Never) => {
                context.dropped(line, "it was for other paths than /v2/")
            }
            ("max_size", Relevance::Partly) => {
                context.decision(line, "a limit is for a domain, not for some requests");
            }
            _ => context.dropped(line, "timeouts measure progress and never the total"),
        }
    }
}

fn log(statement: &Statement, context: &mut SiteContext<'_>) {
    let mut json = false;
    for line in statement.children() {
        json |= line.name() == "format" && line.argument(1) == Some("json");
        let is_file =
            line.name() == "output" && !matches!(line.argument(1), Some("stdout" | "stderr"));
        if is_file {
            let text =
                "the access log goes to standard output: the service manager stores and rotates it";
            context.dropped(line, text);
        }
    }
    if json {
        context.process.json_log = true;
        context.translated(statement, "[log] format = \"json\" in moorgate.toml");
    } else {
        context.redundant(statement, "each request is logged to standard output");
    }
}

/// What may refuse requests by rules of its own, and what changes their paths.
fn barriers(steps: &[FlowStep<'_>], context: &mut SiteContext<'_>) {
    for step in steps {
        match step.event {
            FlowEvent::Barrier if step.statement.name() == "forward_auth" => {
                context.closed(step.statement, "moorgate asks no other server who may do what");
            }
            FlowEvent::Barrier => {
                context.closed(step.statement, "this directive is not known, and may refuse requests");
            }
            FlowEvent::Rewrite => context.decision(
                step.statement,
                "moorgate forwards method and path as they are: the registry has to serve them below /v2/",
            ),
            FlowEvent::Login | FlowEvent::Refusal | FlowEvent::Server => {}
        }
    }
}

fn registry(
    of_registry: &[FlowStep<'_>],
    of_pages: &[FlowStep<'_>],
    context: &mut SiteContext<'_>,
) {
    let servers = of_registry
        .iter()
        .filter(|step| step.event == FlowEvent::Server);
    let servers: Vec<_> = servers.collect();
    let unconditional = servers.iter().find(|step| step.conditions().is_empty());
    let Some(first) = unconditional.or(servers.first()) else {
        return;
    };
    let logins = login::logins(of_registry, context);
    context.site.registry = proxy::server(first.statement, "[upstream]", context);
    let networks = login::refusals(of_registry, context);
    let mut branches = Vec::new();
    for step in &servers {
        if !std::ptr::eq(step.statement, first.statement) {
            let other = proxy::address(step.statement);
            if other != proxy::address(first.statement) {
                let text = "a domain has one registry: this one is left out, and who came here may not use the other";
                context.decision(step.statement, text);
                login::taken_by_others(step, context);
                continue;
            }
            context.translated(step.statement, "[upstream] url, as above");
        }
        branches.push(login::branch(step, &logins, context));
        if matcher::limits(step.conditions(), matcher::RuleKind::Allow).is_none() {
            let text = "no access rule can say which requests came here: this way is closed until rules in [[access]] \
                        open it";
            context.decision(step.statement, text);
            proposals(step, context);
        }
    }
    login::fallbacks(&mut branches, of_registry, context);
    let users = login::passing(&logins, &first.gates);
    pages(of_pages, first.statement, users.as_ref(), context);
    login::rules(&branches, &networks, logins, context);
}

/// The repositories of a way that rules cannot open by themselves, for somebody to choose.
fn proposals(step: &FlowStep<'_>, context: &mut SiteContext<'_>) {
    let conditions = step.conditions().into_iter();
    let paths = conditions.filter(|one| matches!(one, matcher::MatchCondition::Paths(_)));
    if let Some(limits) = matcher::limits(paths, matcher::RuleKind::Allow)
        && !limits.repositories.is_empty()
    {
        let text = format!(
            "{}: [[access]] users = [\"…\"], repositories = {:?}, actions = [\"…\"]",
            step.statement.at, limits.repositories
        );
        context.site.access.proposals.push(text);
    }
}

/// The server of everything outside of `/v2/`, if whoever may see it may use the registry.
fn pages(
    steps: &[FlowStep<'_>],
    registry: &Statement,
    users: Option<&std::collections::BTreeSet<String>>,
    context: &mut SiteContext<'_>,
) {
    let servers = steps.iter().filter(|step| step.event == FlowEvent::Server);
    let Some(page) = servers
        .clone()
        .find(|step| step.conditions().is_empty())
        .or(servers.clone().next())
    else {
        return;
    };
    if std::ptr::eq(page.statement, registry)
        || proxy::address(page.statement) == proxy::address(registry)
    {
        return;
    }
    context.site.browser = proxy::server(page.statement, "[browser]", context);
    let reasons = reasons_to_leave_out(steps, page, users, context);
    if !reasons.is_empty() {
        let text = format!(
            "moorgate shows all pages to every user that may pull everything, and Caddy did not: [browser] is in a comment \
             ({})",
            reasons.join("; ")
        );
        context.decision(page.statement, text);
        context.site.left_out.extend(reasons);
    }
}

/// What Caddy did with pages that [browser] cannot do.
fn reasons_to_leave_out(
    steps: &[FlowStep<'_>],
    page: &FlowStep<'_>,
    users: Option<&std::collections::BTreeSet<String>>,
    context: &mut SiteContext<'_>,
) -> Vec<String> {
    let mut reasons = Vec::new();
    if !page.conditions().is_empty() {
        reasons.push("Caddy sent only some paths there".to_owned());
    }
    for step in steps {
        let refuses = match step.event {
            FlowEvent::Barrier => true,
            FlowEvent::Refusal => step.statement.name() != "redir" && is_refusal(step.statement),
            FlowEvent::Login | FlowEvent::Server | FlowEvent::Rewrite => false,
        };
        if refuses && !step.conditions().is_empty() || step.event == FlowEvent::Barrier {
            reasons.push(super::report::shown(step.statement));
        }
    }
    let mut ignored = super::report::ImportReport::default();
    std::mem::swap(context.report, &mut ignored);
    let logins = login::logins(steps, context);
    std::mem::swap(context.report, &mut ignored);
    let is_partly_closed = logins
        .iter()
        .any(|login| !page.gates.is_empty() || !login.users.is_empty());
    let passing = login::passing(&logins, &page.gates);
    if is_partly_closed && passing.is_none() {
        reasons.push("a part of its pages needed a login of its own".to_owned());
    }
    if let Some(passing) = &passing
        && !users.is_some_and(|users| users.is_subset(passing))
    {
        reasons.push("not all users of the registry could see it".to_owned());
    }
    reasons
}

/// Servers that neither registry requests nor pages reach first.
fn left_out(directives: &[Statement], context: &mut SiteContext<'_>) {
    for statement in directives {
        left_out(statement.children(), context);
        let is_used = context
            .report
            .directives
            .iter()
            .any(|one| one.at == statement.at);
        match statement.name() {
            "reverse_proxy" if !is_used => {
                let text = "a domain has one registry and one server for all other paths: this one is left out";
                context.decision(statement, text);
            }
            "basic_auth" | "basicauth" if !is_used => {
                let text = "no request of a registry came here: these users are left out, and pages need the login of the \
                            registry";
                context.dropped(statement, text);
            }
            "respond" | "abort" | "error" | "redir" if !is_used => {
                let text = "no request below /v2/ came here in Caddy either: another directive answers before";
                context.dropped(statement, text);
            }
            _ => {}
        }
    }
}

/// Gives each address its scheme and port, as version 2 chooses them.
fn ports(context: &mut SiteContext<'_>) {
    let (http, https) = (
        context.process.http_port.unwrap_or(80),
        context.process.https_port.unwrap_or(443),
    );
    let is_automatic = context.site.certificate == SiteCertificate::Automatic;
    for address in &mut context.site.addresses {
        let is_plain = address.scheme == Some(SiteScheme::Http)
            || address.scheme.is_none()
                && address.port.is_some_and(|port| port == http || port == 80)
            || is_automatic && address.scheme.is_none() && context.process.no_http;
        let default = if is_plain { http } else { https };
        address.port = Some(address.port.unwrap_or(default));
        address.scheme = Some(if is_plain {
            SiteScheme::Http
        } else {
            SiteScheme::Https
        });
    }
}

/// The address of a token; `None` if it is none.
pub(super) fn address(token: &CaddyToken) -> Option<SiteAddress> {
    SiteAddress::parse(token.text.trim_end_matches(','), &token.at)
}
