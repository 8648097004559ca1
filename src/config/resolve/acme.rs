//! The CAs and challenges of `moorgate.toml`.

use std::sync::Arc;

use secrecy::SecretString;

use super::MainFile;
use crate::config::acme::{
    AcmeDirectory, AcmeSettings, CaSettings, ChallengeKind, ExternalBinding, KnownCa,
    ValidationPorts,
};
use crate::config::problem::{Problem, Problems};
use crate::config::raw::{RawAcmeSettings, RawCa, Setting};
use crate::config::source::{Source, Span};

/// The settings with defaults, and the contact address of domains with `acme = true`.
pub(super) fn settings(main: &MainFile, problems: &mut Problems) -> (AcmeSettings, Option<String>) {
    let raw = main.raw.acme.or_empty();
    let dns_command = dns_command(main, &raw, problems);
    let settings = AcmeSettings {
        authorities: authorities(main, problems),
        challenges: challenges(main, &raw, dns_command.is_some(), problems),
        dns_command,
        resolvers: raw
            .resolvers
            .given()
            .into_iter()
            .flatten()
            .map(|server| *server.get_ref())
            .collect(),
    };
    (settings, raw.email.given().cloned())
}

fn dns_command(
    main: &MainFile,
    raw: &RawAcmeSettings,
    problems: &mut Problems,
) -> Option<Vec<String>> {
    let mut command: Vec<String> = raw
        .dns_command
        .given()?
        .iter()
        .map(|word| word.get_ref().clone())
        .collect();
    let Some(program) = command.first_mut().filter(|program| !program.is_empty()) else {
        let help = "write [\"/usr/local/bin/set-txt\"], or leave the key out";
        problems.extend(raw.dns_command.span().map(|span| {
            Problem::at(
                &main.source,
                span,
                "`acme.dns_command` names no program",
                help,
            )
        }));
        return None;
    };
    // A bare name is searched in PATH, as in a shell.
    if program.contains('/') {
        *program = main
            .source
            .beside(program.as_ref())
            .to_string_lossy()
            .into_owned();
    }
    Some(command)
}

fn challenges(
    main: &MainFile,
    raw: &RawAcmeSettings,
    has_command: bool,
    problems: &mut Problems,
) -> Vec<ChallengeKind> {
    let listens = main.raw.http.given().is_none_or(|http| !http.is_empty());
    let Some(written) = raw.challenges.given() else {
        let default = [
            (ChallengeKind::TlsAlpn01, true),
            (ChallengeKind::Http01, listens),
            (ChallengeKind::Dns01, has_command),
        ];
        return default
            .into_iter()
            .filter(|(_, works)| *works)
            .map(|(kind, _)| kind)
            .collect();
    };
    let mut report = |span: &Span, message: &str, help: &str| {
        problems.push(Problem::at(&main.source, span, message, help));
    };
    if let Some(span) = raw.challenges.span().filter(|_| written.is_empty()) {
        report(
            span,
            "`acme.challenges` is empty: no name could be proved",
            "leave the key out for the default",
        );
    }
    for kind in written {
        match kind.get_ref() {
            ChallengeKind::Dns01 if !has_command => {
                let help = "write dns_command = [\"/usr/local/bin/set-txt\"] in [acme]";
                report(&kind.span(), "\"dns-01\" needs `acme.dns_command`", help);
            }
            ChallengeKind::Http01 if !listens => {
                let help = "write http = [\":80\"], or leave \"http-01\" out";
                report(&kind.span(), "\"http-01\" needs a listener in `http`", help);
            }
            ChallengeKind::TlsAlpn01
            | ChallengeKind::Http01
            | ChallengeKind::Dns01
            | ChallengeKind::DnsPersist01 => {}
        }
    }
    let mut kinds: Vec<ChallengeKind> = Vec::new();
    for kind in written {
        if !kinds.contains(kind.get_ref()) {
            kinds.push(*kind.get_ref());
        }
    }
    kinds
}

/// The CAs; Let's Encrypt by default.
fn authorities(main: &MainFile, problems: &mut Problems) -> Vec<CaSettings> {
    let default = || vec![CaSettings::new(AcmeDirectory::Known(KnownCa::LetsEncrypt))];
    let Setting::Given(written, whole) = &main.raw.ca else {
        return default();
    };
    if written.is_empty() {
        let help = "leave it out for Let's Encrypt";
        problems.push(Problem::at(
            &main.source,
            whole,
            "`ca` is empty: nobody could issue",
            help,
        ));
        return default();
    }
    let mut authorities: Vec<CaSettings> = Vec::new();
    for (index, raw) in written.iter().enumerate() {
        let secret = main.bindings.get(index).cloned().flatten();
        let Some(ca) = authority(&main.source, raw.get_ref(), &raw.span(), secret, problems) else {
            continue;
        };
        if authorities
            .iter()
            .any(|other| other.directory == ca.directory)
        {
            let message = format!("the CA `{}` is named twice", ca.directory);
            problems.push(Problem::at(
                &main.source,
                &raw.span(),
                message,
                "leave one of them out",
            ));
            continue;
        }
        authorities.push(ca);
    }
    authorities
}

fn authority(
    source: &Arc<Source>,
    raw: &RawCa,
    header: &Span,
    secret: Option<SecretString>,
    problems: &mut Problems,
) -> Option<CaSettings> {
    let RawCa {
        directory,
        roots,
        profile,
        chain,
        eab_key_id,
        eab_hmac_key: _,
        public,
        http_port,
        tls_port,
    } = raw;
    if directory.is_absent() {
        let help = "write directory = \"letsencrypt\", or a URL";
        problems.push(Problem::at(
            source,
            header,
            "`ca.directory` is missing",
            help,
        ));
    }
    check_binding(source, raw, header, problems);
    let binding = eab_key_id.given().cloned().zip(secret);
    let usual = ValidationPorts::default();
    Some(CaSettings {
        directory: directory.given()?.clone(),
        roots: roots.given().map(|path| source.beside(path)),
        profile: profile.given().cloned(),
        chain: chain.given().cloned(),
        binding: binding.map(|(key_id, hmac_key)| ExternalBinding { key_id, hmac_key }),
        public: public.given().copied(),
        ports: ValidationPorts {
            http: http_port.given().copied().unwrap_or(usual.http),
            tls: tls_port.given().copied().unwrap_or(usual.tls),
        },
    })
}

/// Checks that `eab_key_id` and `eab_hmac_key` come together, and both for a CA that requires them.
fn check_binding(source: &Arc<Source>, raw: &RawCa, header: &Span, problems: &mut Problems) {
    let RawCa {
        directory,
        eab_key_id,
        eab_hmac_key,
        ..
    } = raw;
    let mut report = |span: &Span, message: &str, help: &str| {
        problems.push(Problem::at(source, span, message, help));
    };
    if let Some(span) = eab_key_id.span().filter(|_| eab_hmac_key.is_absent()) {
        let help = "write eab_hmac_key = { file = \"PATH\" }";
        report(span, "`ca.eab_key_id` has no `eab_hmac_key`", help);
    }
    if let Some(span) = eab_hmac_key.span().filter(|_| eab_key_id.is_absent()) {
        let help = "write eab_key_id = \"ID\" beside it";
        report(span, "`ca.eab_hmac_key` has no `eab_key_id`", help);
    }
    if let Some(AcmeDirectory::Known(ca)) = directory.given()
        && ca.needs_binding()
        && eab_key_id.is_absent()
    {
        let message = format!("\"{}\" needs an external account binding", ca.name());
        let help = "write `eab_key_id` and `eab_hmac_key`, which its web page gives out";
        report(header, &message, help);
    }
}
