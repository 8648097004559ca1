//! Durations and sizes, from Caddy's spelling to moorgate's.

/// A duration of Go, `1m30s`, as moorgate writes it, `90s`. `None` for zero and for what is none.
pub(super) fn duration(text: &str) -> Option<String> {
    let milliseconds = milliseconds(text)?;
    if milliseconds == 0 {
        return None;
    }
    let units = [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("min", 60_000),
        ("s", 1000),
        ("ms", 1),
    ];
    let (unit, factor) = units
        .into_iter()
        .find(|(_, factor)| milliseconds.is_multiple_of(*factor))?;
    Some(format!("{}{unit}", milliseconds / factor))
}

pub(super) fn milliseconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let (number, after) = rest.split_at(rest.find(|c| !is_number(c))?);
        let unit = after
            .find(is_number)
            .map_or(after, |end| after.get(..end).unwrap_or(after));
        let (_, factor) = [
            ("d", 86_400_000),
            ("h", 3_600_000),
            ("m", 60_000),
            ("s", 1000),
            ("ms", 1),
        ]
        .into_iter()
        .find(|(name, _)| *name == unit)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole: u64 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        total = total.checked_add(whole.checked_mul(factor)?)?;
        total = total.checked_add(part(fraction, factor)?)?;
        rest = after.get(unit.len()..)?;
    }
    Some(total)
}

/// Digits after the point, of a factor.
fn part(fraction: &str, factor: u64) -> Option<u64> {
    let digits = fraction.get(..fraction.len().min(6))?;
    if digits.is_empty() {
        return Some(0);
    }
    let value: u64 = digits.parse().ok()?;
    let scale = 10u64.checked_pow(u32::try_from(digits.len()).ok()?)?;
    Some(value.checked_mul(factor)? / scale)
}

/// A size of version 1, where units are binary: `10MB` is 10 MiB.
pub(super) fn binary_size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor = match unit.as_str() {
        "" | "b" => 1,
        "kb" => 1 << 10,
        "mb" => 1 << 20,
        "gb" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// A size of version 2, where units say whether they are binary.
pub(super) fn decimal_size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor = match unit.as_str() {
        "" | "b" => 1,
        "kb" | "k" => 1000,
        "mb" | "m" => 1_000_000,
        "gb" | "g" => 1_000_000_000,
        "tb" | "t" => 1_000_000_000_000,
        "kib" | "ki" => 1 << 10,
        "mib" | "mi" => 1 << 20,
        "gib" | "gi" => 1 << 30,
        "tib" | "ti" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

fn split(text: &str) -> Option<(u64, String)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim().to_lowercase()))
}

/// The server of an address to proxy to: a URL without a login, or why there is none.
pub(super) fn upstream_url(text: &str) -> Result<String, &'static str> {
    if text.contains(['{', '}']) {
        return Err("moorgate has no placeholders: write the address of the registry as `url`");
    }
    let (scheme, rest) = match text.split_once("://") {
        None if text.starts_with("unix/") || text.starts_with("unix:") => {
            return Err(
                "moorgate does not connect to Unix sockets: let the registry listen on a loopback address",
            );
        }
        None => ("http", text),
        Some(("http" | "h2c", rest)) => ("http", rest),
        Some(("https", rest)) => ("https", rest),
        Some(("srv" | "srv+https", _)) => {
            return Err("moorgate does not read SRV records: write host and port as `url`");
        }
        Some(_) => return Err("moorgate speaks http and https to a registry: write its `url`"),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let authority = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let authority = match authority.strip_prefix(':') {
        Some(port) => format!("localhost:{port}"),
        None => authority.to_owned(),
    };
    let range = authority.rsplit_once(':').map(|(_, port)| port);
    if range.is_some_and(|port| port.contains('-')) {
        return Err("a range of ports is several registries: moorgate has one `url` for a domain");
    }
    // Caddy takes the port for the scheme.
    let scheme = match (text.contains("://"), range) {
        (false, Some("443")) => "https",
        _ => scheme,
    };
    Ok(format!(
        "{scheme}://{authority}{}",
        path.trim_end_matches('/')
    ))
}
