//! Texts that mean booleans, durations, sizes and addresses, as people write them in Patroni files.

/// on/off, true/false, yes/no, 1/0 in any case.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Some(true),
        "off" | "false" | "no" | "0" => Some(false),
        _ => None,
    }
}

/// Milliseconds of a duration such as `2`, `2.5`, `50ms`, `30min`; `bare_ms` is what a bare number counts, where one
/// is understood. Nothing needs no unit.
pub(crate) fn duration_ms(text: &str, bare_ms: Option<u64>) -> Option<u64> {
    let units = [
        ("ms", 1),
        ("s", 1_000),
        ("min", 60_000),
        ("h", 3_600_000),
        ("d", 86_400_000),
    ];
    let bare_ms = bare_ms.or((text.trim() == "0").then_some(1));
    scaled(text, &units, bare_ms)
}

/// Bytes of a size such as `1048576`, `16MB`, `1 GB`; `bare` is what a bare number counts.
pub(crate) fn bytes(text: &str, bare: u64) -> Option<u64> {
    let units = [
        ("b", 1),
        ("kb", 1 << 10),
        ("mb", 1 << 20),
        ("gb", 1 << 30),
        ("tb", 1 << 40),
    ];
    scaled(text, &units, Some(bare))
}

fn scaled(text: &str, units: &[(&str, u64)], bare: Option<u64>) -> Option<u64> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    let unit = unit.trim().to_ascii_lowercase();
    let factor = if unit.is_empty() {
        bare?
    } else {
        units
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, factor)| *factor)?
    };
    if number.contains('.') {
        decimal(number, factor)
    } else {
        number.parse::<u64>().ok()?.checked_mul(factor)
    }
}

/// A decimal fraction times a factor, rounded, in integers.
fn decimal(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.')?;
    let whole = if whole.is_empty() {
        0
    } else {
        whole.parse::<u64>().ok()?
    };
    let scale = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let fraction = if fraction.is_empty() {
        0
    } else {
        fraction.parse::<u64>().ok()?
    };
    let part = fraction.checked_mul(factor)?.checked_add(scale / 2)? / scale;
    whole.checked_mul(factor)?.checked_add(part)
}

/// A duration as people write it, shortest unit that is exact.
pub(crate) fn show_ms(ms: u64) -> String {
    match ms {
        ms if ms % 1_000 == 0 => format!("{} s", ms / 1_000),
        ms if ms < 1_000 => format!("{ms} ms"),
        ms => format!(
            "{}.{} s",
            ms / 1_000,
            format!("{:03}", ms % 1_000).trim_end_matches('0')
        ),
    }
}

/// Host and port of `host:port`, `[v6]:port`; a host alone takes `default_port`.
pub(crate) fn address(text: &str, default_port: Option<u16>) -> Result<(String, u16), String> {
    let example = |host: &str| format!("write host:port, such as {host}:{}", default_port.unwrap_or(5432));
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None if text.matches(':').count() > 1 => {
            return Err(format!(
                "\"{text}\" looks like an IPv6 address; write [address]:port"
            ));
        }
        None => text
            .split_once(':')
            .map_or((text, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || matches!(c, '/' | '@' | '\'')) {
        return Err(format!(
            "\"{text}\" has no host name or address; {}",
            example("10.0.0.1")
        ));
    }
    match (port.map(str::parse::<u16>), default_port) {
        (Some(Ok(port)), _) if port > 0 => Ok((host.to_owned(), port)),
        (None, Some(port)) => Ok((host.to_owned(), port)),
        (None, None) => Err(format!("\"{text}\" has no port; {}", example(host))),
        _ => Err(format!(
            "\"{text}\" has no port between 1 and 65535; {}",
            example(host)
        )),
    }
}

/// `host:port` with brackets where the host needs them.
pub(crate) fn join(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Whether an address reaches this machine only.
pub(crate) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether an address stands for all of a machine's own.
pub(crate) fn is_wildcard(host: &str) -> bool {
    host == "*"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        assert_eq!(duration_ms("2", Some(1_000)), Some(2_000));
        assert_eq!(duration_ms("2.5", Some(1_000)), Some(2_500));
        assert_eq!(duration_ms("30min", None), Some(1_800_000));
        assert_eq!(duration_ms("50 ms", None), Some(50));
        assert_eq!(duration_ms("50", None), None);
        assert_eq!(duration_ms("0", None), Some(0));
        assert_eq!(duration_ms("-1", Some(1)), None);
        assert_eq!(duration_ms("fast", Some(1)), None);
        assert_eq!(bytes("16MB", 1), Some(16 << 20));
        assert_eq!(bytes("1.5kB", 1), Some(1_536));
        assert_eq!(bytes("99999999999999999999", 1), None);
        assert_eq!(bytes("0.00000000000000000000001", 1), None);
        assert_eq!(show_ms(30_300), "30.3 s");
        assert_eq!(show_ms(500), "500 ms");
        assert_eq!(show_ms(2_000), "2 s");
    }

    #[test]
    fn addresses() {
        let good = |text| address(text, None).unwrap();
        assert_eq!(good("10.0.0.1:5432"), ("10.0.0.1".into(), 5432));
        assert_eq!(good("[::1]:5432"), ("::1".into(), 5432));
        assert_eq!(good("*:5432"), ("*".into(), 5432));
        assert_eq!(address("db1", Some(5432)).unwrap(), ("db1".into(), 5432));
        for text in [
            "db1",
            ":1",
            "db1:0",
            "db1:70000",
            "db1:x",
            "fe80::1",
            "a b:1",
            "http://a:1",
            "",
        ] {
            assert!(address(text, None).is_err(), "{text}");
        }
    }
}
