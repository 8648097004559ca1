//! What the translation of a site reads and writes, and the directives that both versions share.

use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::files::Volumes;
use super::parser::Statement;
use super::position::SourcePosition;
use super::report::{DirectiveOutcome, ImportReport};
use super::scope::RegistryScope;
use super::site::{
    ImportedProcess, ImportedRule, ImportedSite, ImportedUpstream, RuleLimits, SiteCertificate,
};
use super::variables::Variables;

/// A site on its way from one configuration to the other.
pub(super) struct SiteContext<'a> {
    pub(super) site: &'a mut ImportedSite,
    pub(super) process: &'a mut ImportedProcess,
    pub(super) report: &'a mut ImportReport,
    pub(super) variables: &'a mut Variables,
    pub(super) volumes: &'a Volumes,
}

impl SiteContext<'_> {
    pub(super) fn translated(&mut self, statement: &Statement, text: impl Into<String>) {
        self.report
            .add(statement, DirectiveOutcome::Translated, text);
    }

    pub(super) fn redundant(&mut self, statement: &Statement, text: impl Into<String>) {
        self.report
            .add(statement, DirectiveOutcome::Redundant, text);
    }

    pub(super) fn dropped(&mut self, statement: &Statement, text: impl Into<String>) {
        self.report.add(statement, DirectiveOutcome::Dropped, text);
    }

    pub(super) fn decision(&mut self, statement: &Statement, text: impl Into<String>) {
        self.report.add(statement, DirectiveOutcome::Decision, text);
    }

    pub(super) fn error(&mut self, statement: &Statement, text: impl Into<String>) {
        self.report.add(statement, DirectiveOutcome::Error, text);
    }

    /// A directive whose absence might let somebody in: nobody gets in until it is decided.
    pub(super) fn closed(&mut self, statement: &Statement, text: &str) {
        let shown = super::report::shown(statement);
        self.site.access.close(format!("{}: {shown}", statement.at));
        self.decision(
            statement,
            format!("{text}; until then nobody gets in, by the last rule of the domain file"),
        );
    }

    /// A directive that refuses requests becomes a rule that denies them.
    pub(super) fn denied(
        &mut self,
        statement: &Statement,
        scope: RegistryScope,
        limits: RuleLimits,
    ) {
        let limits = match scope {
            RegistryScope::Outside => {
                self.site.left_out.push(super::report::shown(statement));
                self.decision(
                    statement,
                    "moorgate has no rules for single pages: [browser] is left out, if there is one",
                );
                return;
            }
            RegistryScope::Unknown => {
                return self.closed(
                    statement,
                    "no access rule can refuse exactly these requests",
                );
            }
            RegistryScope::Whole => limits,
            RegistryScope::Catalog => RuleLimits {
                actions: vec!["catalog"],
                ..limits
            },
            RegistryScope::Repositories(repositories) => RuleLimits {
                repositories,
                ..limits
            },
        };
        self.site.access.rules.push(ImportedRule {
            users: vec!["*".to_owned()],
            limits,
            is_deny: true,
        });
        self.translated(statement, "[[access]] with deny = true");
    }

    /// A path that Caddy opens, as this machine has it. Relative ones start at the main file.
    pub(super) fn host_path(&mut self, written: &str, at: &SourcePosition) -> PathBuf {
        let path = self.volumes.on_host(Path::new(written));
        if path.is_absolute() {
            return path;
        }
        let directory = at.file.parent().unwrap_or(Path::new(""));
        let path = directory.join(path);
        std::path::absolute(&path).unwrap_or(path)
    }

    /// The same, with a decision if there is no such file.
    pub(super) fn existing_file(&mut self, statement: &Statement, written: &str) -> String {
        let path = self.host_path(written, &statement.at);
        if !path.is_file() {
            let text = format!(
                "there is no file {} on this machine: name the directory by --volume HOST:CONTAINER, or correct \
                 the path",
                path.display()
            );
            self.decision(statement, text);
        }
        path.display().to_string()
    }

    /// `tls CERTIFICATE KEY`.
    pub(super) fn certificate_files(
        &mut self,
        statement: &Statement,
        certificate: &str,
        key: &str,
    ) {
        let certificate = self.existing_file(statement, certificate);
        let key = self.existing_file(statement, key);
        self.translated(
            statement,
            "[tls] certificate and key, read again when they change",
        );
        self.site.certificate = SiteCertificate::Files { certificate, key };
    }

    /// `bind ADDRESS...`.
    pub(super) fn bind(&mut self, statement: &Statement) {
        for address in statement.arguments() {
            if address.parse::<std::net::IpAddr>().is_ok() {
                self.site.bind.push(address.to_owned());
                self.translated(statement, "`listen`");
            } else {
                // Anything but the machine itself could be more than it was.
                self.site.bind.push("127.0.0.1".to_owned());
                self.decision(
                    statement,
                    "write the address itself into `listen`: until then the domain is served on 127.0.0.1 only",
                );
            }
        }
    }

    /// The servers of a group after the first.
    /// The further servers of a group: replicas of its registry where they can be.
    pub(super) fn other_servers(
        &mut self,
        statement: &Statement,
        others: Vec<String>,
        upstream: &mut ImportedUpstream,
        is_registry: bool,
    ) {
        if is_registry && are_replicas(&upstream.url, &others) {
            if !others.is_empty() {
                self.translated(statement, "`urls` of [upstream]: replicas of one registry");
            }
            upstream.replicas = others;
            return;
        }
        if !others.is_empty() {
            let text = "a domain has one `url`: the first one is used, the others are in a comment";
            self.decision(statement, text);
        }
        upstream.others = others;
    }

    /// A provider of DNS, which only a program can speak to.
    pub(super) fn dns_provider(&mut self, statement: &Statement, provider: &str) {
        let text = format!(
            "`{}` is asked by a program of yours: set `dns_command` in [acme] of moorgate.toml",
            super::report::one_line(provider)
        );
        self.decision(statement, text);
    }

    /// The key of an external account.
    pub(super) fn binding(
        &mut self,
        statement: &Statement,
        id: &str,
        key: &str,
    ) -> (String, SecretString) {
        let id = self.variables.expand_placeholders(id, &statement.at);
        let key = self.variables.expand_placeholders(key, &statement.at);
        self.translated(statement, "[[ca]] eab_key_id and eab_hmac_key");
        (id, SecretString::from(key))
    }

    pub(super) fn timeout(&mut self, statement: &Statement, key: &'static str, longest: &str) {
        let written = statement.argument(1).unwrap_or_default();
        match super::values::duration(written) {
            Some(duration) => {
                self.translated(statement, format!("[timeouts] {key} = \"{duration}\""));
                self.site.timeouts.insert(key, duration);
            }
            None => self.dropped(statement, longest),
        }
    }

    /// A limit for bodies: layers above it were refused before, too.
    pub(super) fn body_limit(&mut self, statement: &Statement, size: Option<u64>) {
        let Some(size) = size.filter(|size| *size > 0) else {
            return self.error(statement, "the size cannot be read");
        };
        self.site.body_limit = Some(self.site.body_limit.map_or(size, |other| other.min(size)));
        self.translated(statement, format!("[limits] body = {size}"));
        if size < SMALL_BODY {
            let text = "layers of more than this are refused with 413, as they were by Caddy: registries are better \
                        off without `body` in [limits]";
            self.report.differs(format!("{}: {text}", statement.at));
        }
    }
}

/// Whether the addresses differ in nothing but host and port.
fn are_replicas(url: &str, others: &[String]) -> bool {
    let general = |url: &str| {
        let (scheme, rest) = url.split_once("://")?;
        let path = rest.split_once('/').map_or("", |(_, path)| path);
        Some((scheme.to_owned(), path.to_owned()))
    };
    let are_different = others.iter().enumerate().all(|(index, other)| {
        other != url && others.iter().take(index).all(|before| before != other)
    });
    are_different && others.iter().all(|other| general(other) == general(url))
}

/// Many images have larger layers.
const SMALL_BODY: u64 = 1 << 30;
