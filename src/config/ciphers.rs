//! `restapi.ciphers`: a cipher list as OpenSSL has it -> the suites of ours that it leaves, most wanted first.

use super::survey::nearest;

/// A list that was understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// IANA numbers of the suites that are left, most wanted first.
    pub(crate) suites: Vec<u16>,
    /// What it wants that nothing here can follow.
    pub(crate) without_effect: Vec<String>,
}

/// A suite that our TLS speaks.
struct Suite {
    number: u16,
    /// OpenSSL's name, then the standard one where it differs.
    names: &'static [&'static str],
    /// The groups of OpenSSL that it belongs to, beside [`EVERY`] and [`EVERY_1_2`].
    groups: &'static [&'static str],
}

const EVERY: &[&str] = &["ALL", "DEFAULT", "HIGH", "FIPS"];
const EVERY_1_2: &[&str] = &["TLSv1.2", "ECDHE", "EECDH", "kECDHE", "kEECDH", "ECDH", "AEAD"];
const TLS_1_3: &str = "TLSv1.3";

/// In the order in which they are offered.
const SUITES: &[Suite] = &[
    suite(0x1302, &["TLS_AES_256_GCM_SHA384"], &[TLS_1_3]),
    suite(0x1301, &["TLS_AES_128_GCM_SHA256"], &[TLS_1_3]),
    suite(0x1303, &["TLS_CHACHA20_POLY1305_SHA256"], &[TLS_1_3]),
    suite(
        0xc02c,
        &[
            "ECDHE-ECDSA-AES256-GCM-SHA384",
            "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        ],
        &["aECDSA", "ECDSA", "AES", "AESGCM", "AES256"],
    ),
    suite(
        0xc02b,
        &[
            "ECDHE-ECDSA-AES128-GCM-SHA256",
            "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        ],
        &["aECDSA", "ECDSA", "AES", "AESGCM", "AES128"],
    ),
    suite(
        0xcca9,
        &[
            "ECDHE-ECDSA-CHACHA20-POLY1305",
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        ],
        &["aECDSA", "ECDSA", "CHACHA20"],
    ),
    suite(
        0xc030,
        &[
            "ECDHE-RSA-AES256-GCM-SHA384",
            "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        ],
        &["aRSA", "AES", "AESGCM", "AES256"],
    ),
    suite(
        0xc02f,
        &[
            "ECDHE-RSA-AES128-GCM-SHA256",
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        ],
        &["aRSA", "AES", "AESGCM", "AES128"],
    ),
    suite(
        0xcca8,
        &[
            "ECDHE-RSA-CHACHA20-POLY1305",
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        ],
        &["aRSA", "CHACHA20"],
    ),
];

/// OpenSSL's groups in which there is none of ours.
const EMPTY: &[&str] = &[
    "COMPLEMENTOFDEFAULT",
    "COMPLEMENTOFALL",
    "MEDIUM",
    "LOW",
    "EXP",
    "EXPORT",
    "EXPORT40",
    "EXPORT56",
    "eNULL",
    "NULL",
    "aNULL",
    "kRSA",
    "RSA",
    "kDHE",
    "kEDH",
    "DHE",
    "EDH",
    "DH",
    "kDH",
    "kDHr",
    "kDHd",
    "aDH",
    "ADH",
    "AECDH",
    "kECDH",
    "kECDHr",
    "kECDHe",
    "aECDH",
    "aDSS",
    "DSS",
    "PSK",
    "kPSK",
    "aPSK",
    "kRSAPSK",
    "kECDHEPSK",
    "kDHEPSK",
    "SRP",
    "kSRP",
    "aSRP",
    "KRB5",
    "kKRB5",
    "aKRB5",
    "FZA",
    "SSLv1",
    "SSLv2",
    "SSLv3",
    "TLSv1",
    "TLSv1.0",
    "TLSv1.1",
    "AESCCM",
    "AESCCM8",
    "CBC",
    "3DES",
    "DES",
    "RC4",
    "RC2",
    "IDEA",
    "SEED",
    "CAMELLIA",
    "CAMELLIA128",
    "CAMELLIA256",
    "ARIA",
    "ARIA128",
    "ARIA256",
    "ARIAGCM",
    "MD5",
    "SHA",
    "SHA1",
    "SHA256",
    "SHA384",
    "GOST94",
    "GOST89MAC",
    "aGOST",
    "aGOST01",
    "kGOST",
    "GOST",
    "SUITEB128",
    "SUITEB128ONLY",
    "SUITEB192",
];

/// What OpenSSL's names of single suites are put together from.
const PARTS: &[&str] = &[
    "ECDHE",
    "ECDH",
    "DHE",
    "EDH",
    "DH",
    "ADH",
    "AECDH",
    "PSK",
    "SRP",
    "RSA",
    "ECDSA",
    "DSS",
    "KRB5",
    "EXP",
    "AES128",
    "AES256",
    "AES",
    "128",
    "256",
    "CAMELLIA128",
    "CAMELLIA256",
    "ARIA128",
    "ARIA256",
    "CHACHA20",
    "POLY1305",
    "GCM",
    "CCM",
    "CCM8",
    "CBC",
    "CBC3",
    "DES",
    "3DES",
    "EDE",
    "RC4",
    "RC2",
    "40",
    "IDEA",
    "SEED",
    "NULL",
    "MD5",
    "SHA",
    "SHA256",
    "SHA384",
    "GOST2001",
    "GOST2012",
    "GOST89",
    "GOST94",
    "RSAPSK",
    "DHEPSK",
];

const fn suite(number: u16, names: &'static [&'static str], groups: &'static [&'static str]) -> Suite {
    Suite {
        number,
        names,
        groups,
    }
}

impl Suite {
    fn is_1_3(&self) -> bool {
        self.groups.contains(&TLS_1_3)
    }

    /// Whether it is called so or belongs to it. The groups of TLS 1.3 are its own name and the names of everything.
    fn is(&self, word: &str) -> bool {
        let called = |names: &[&str]| names.iter().any(|name| name.eq_ignore_ascii_case(word));
        called(self.names) || called(self.groups) || called(EVERY) || (!self.is_1_3() && called(EVERY_1_2))
    }
}

/// Reads a list. As with OpenSSL, one that names no suite of TLS 1.3 speaks of TLS 1.2 alone; one that names
/// only those leaves TLS 1.2 out.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub(crate) fn parse(list: &str) -> Result<Cut, String> {
    let mut chosen: Vec<&Suite> = Vec::new();
    let mut banned: Vec<u16> = Vec::new();
    let mut without_effect = Vec::new();
    let (mut wants_1_2, mut wants_1_3) = (false, false);
    let words = list.split([':', ',', ' ', ';']).map(str::trim);
    for word in words.filter(|word| !word.is_empty()) {
        if word.starts_with('@') {
            if !is_order(word) {
                return Err(unknown(word));
            }
            without_effect.push(word.to_owned());
            continue;
        }
        let name = word.trim_start_matches(['!', '-', '+']);
        let found = matching(name)?;
        let one_of = |suite: &&Suite| found.contains(&suite.number);
        match word.chars().next() {
            Some('!') => {
                chosen.retain(|suite| !one_of(suite));
                banned.extend(&found);
            }
            Some('-') => chosen.retain(|suite| !one_of(suite)),
            Some('+') => chosen.sort_by_key(one_of),
            _ => {
                let added = || SUITES.iter().filter(one_of);
                let only_1_3 = !found.is_empty() && added().all(Suite::is_1_3);
                wants_1_3 |= only_1_3;
                wants_1_2 |= !only_1_3;
                if found.is_empty() {
                    without_effect.push(name.to_owned());
                }
                let is_new = |suite: &&Suite| !chosen.iter().any(|had| had.number == suite.number);
                let added: Vec<_> = added().filter(is_new).collect();
                chosen.extend(added);
            }
        }
    }
    chosen.retain(|suite| !banned.contains(&suite.number));
    if wants_1_2 && !chosen.iter().any(|suite| !suite.is_1_3()) {
        return Err(format!(
            "\"{list}\" leaves no suite of TLS 1.2 that is spoken here; {}",
            supported()
        ));
    }
    Ok(Cut {
        suites: with_1_3(&chosen, &banned, wants_1_3)?,
        without_effect,
    })
}

/// Those of TLS 1.3 come first: all that were not excluded, unless some were named.
fn with_1_3(chosen: &[&Suite], banned: &[u16], named: bool) -> Result<Vec<u16>, String> {
    let mut newer: Vec<u16> = if named {
        chosen
            .iter()
            .filter(|suite| suite.is_1_3())
            .map(|suite| suite.number)
            .collect()
    } else {
        let all = SUITES.iter().filter(|suite| suite.is_1_3());
        all.map(|suite| suite.number)
            .filter(|number| !banned.contains(number))
            .collect()
    };
    let older = chosen.iter().filter(|suite| !suite.is_1_3());
    newer.extend(older.map(|suite| suite.number));
    if newer.is_empty() {
        return Err(format!("excludes every suite; {}", supported()));
    }
    Ok(newer)
}

/// The suites of a name, or of several joined by `+`, to all of which they belong.
fn matching(name: &str) -> Result<Vec<u16>, String> {
    for part in name.split('+') {
        let known = SUITES.iter().any(|suite| suite.is(part))
            || EMPTY.iter().any(|group| group.eq_ignore_ascii_case(part))
            || is_of_openssl(part);
        if !known {
            return Err(unknown(part));
        }
    }
    let all = SUITES
        .iter()
        .filter(|suite| name.split('+').all(|part| suite.is(part)));
    Ok(all.map(|suite| suite.number).collect())
}

/// Whether it looks like a suite that OpenSSL may have and we do not speak.
fn is_of_openssl(name: &str) -> bool {
    let parts: Vec<&str> = name.split('-').collect();
    let known = |part: &&str| PARTS.contains(part);
    let standard = name.starts_with("TLS_") && name.contains("_WITH_");
    standard || (parts.len() > 1 && parts.iter().all(known))
}

/// `@STRENGTH` and `@SECLEVEL=2`: our order and our level are what they are.
fn is_order(word: &str) -> bool {
    let level = word.strip_prefix("@SECLEVEL=").map(str::parse::<u8>);
    word == "@STRENGTH" || level.is_some_and(|level| level.is_ok_and(|level| level <= 5))
}

fn unknown(word: &str) -> String {
    let names = SUITES.iter().flat_map(|suite| suite.names);
    let groups = SUITES.iter().flat_map(|suite| suite.groups);
    let known = names.chain(groups).chain(EVERY).chain(EVERY_1_2).copied();
    let hint = match nearest(word, known) {
        Some(near) => format!("did you mean \"{near}\"? "),
        None => String::new(),
    };
    format!("\"{word}\" is no cipher suite; {hint}{}", supported())
}

/// What may be written.
pub(crate) fn supported() -> String {
    let names: Vec<&str> = SUITES
        .iter()
        .filter_map(|suite| suite.names.first().copied())
        .collect();
    format!(
        "supported are {} and OpenSSL's groups of them, such as ECDHE+AESGCM",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL_1_3: [u16; 3] = [0x1302, 0x1301, 0x1303];

    fn suites(list: &str) -> Vec<u16> {
        parse(list)
            .unwrap_or_else(|error| panic!("{list}: {error}"))
            .suites
    }

    fn after_1_3(older: &[u16]) -> Vec<u16> {
        [&ALL_1_3[..], older].concat()
    }

    #[test]
    fn what_people_write() {
        // Patroni's own example.
        let cut = parse(
            "ECDHE-RSA-AES256-GCM-SHA384:DHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256:\
             DHE-RSA-AES128-GCM-SHA256:!SSLv1:!SSLv2:!SSLv3:!TLSv1:!TLSv1.1",
        )
        .unwrap();
        assert_eq!(cut.suites, after_1_3(&[0xc030, 0xc02f]));
        assert_eq!(
            cut.without_effect,
            ["DHE-RSA-AES256-GCM-SHA384", "DHE-RSA-AES128-GCM-SHA256"]
        );
        assert_eq!(
            suites("EECDH+AESGCM:EDH+AESGCM"),
            after_1_3(&[0xc02c, 0xc02b, 0xc030, 0xc02f])
        );
        assert_eq!(
            suites("HIGH:!aNULL:!MD5:!3DES"),
            after_1_3(&[0xc02c, 0xc02b, 0xcca9, 0xc030, 0xc02f, 0xcca8])
        );
        assert_eq!(
            suites("ALL:-AES128:!CHACHA20:+aECDSA:@STRENGTH"),
            after_1_3(&[0xc030, 0xc02c])
        );
        assert_eq!(
            suites("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
            after_1_3(&[0xc02f])
        );
    }

    #[test]
    fn each_version_is_limited_by_its_own_names() {
        assert_eq!(suites("TLS_AES_256_GCM_SHA384"), [0x1302]);
        assert_eq!(
            suites("TLS_AES_128_GCM_SHA256:ECDHE-RSA-AES128-GCM-SHA256"),
            [0x1301, 0xc02f]
        );
        assert_eq!(suites("aRSA+CHACHA20:!TLSv1.3"), [0xcca8]);
        assert_eq!(suites("!TLS_CHACHA20_POLY1305_SHA256"), [0x1302, 0x1301]);
    }

    #[test]
    fn what_cannot_be_is_told() {
        for (list, told) in [
            (
                "ECDHE-RSA-AES256-GCM-SHA348",
                "did you mean \"ECDHE-RSA-AES256-GCM-SHA384\"? supported are TLS_",
            ),
            (
                "DHE-RSA-AES256-GCM-SHA384",
                "leaves no suite of TLS 1.2 that is spoken here; supported are TLS_",
            ),
            ("HIGH:!aRSA:!aECDSA", "leaves no suite of TLS 1.2"),
            ("!ALL", "excludes every suite; supported are"),
            ("modern", "\"modern\" is no cipher suite; supported are"),
            ("HIGH:@SECLEVEL=x", "\"@SECLEVEL=x\" is no cipher suite"),
        ] {
            let error = parse(list).unwrap_err();
            assert!(error.contains(told), "{list}: {error}");
        }
    }
}
