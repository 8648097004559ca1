//! Why a push does not fit into an area, in words for who pushes.

use std::fmt;

/// What a push needs, and what there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QuotaExcess {
    /// The patterns of the area.
    pub(crate) area: String,
    /// The bytes that the push needs beyond those that are counted already.
    pub(crate) needed: u64,
    /// The bytes that are counted, of uploads and reservations, too.
    pub(crate) used: u64,
    pub(crate) size: u64,
    /// The bytes of `used` that uploads have received or announced.
    pub(crate) uploads: u64,
}

impl fmt::Display for QuotaExcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            area,
            needed,
            used,
            size,
            uploads,
        } = self;
        write!(
            f,
            "the quota is used up: this push needs {}, and \"{area}\" holds {} of {}",
            ByteCount(*needed),
            ByteCount(*used),
            ByteCount(*size)
        )?;
        if *uploads > 0 {
            let uploads = ByteCount(*uploads);
            write!(f, " ({uploads} of it in uploads that are not finished)")?;
        }
        Ok(())
    }
}

/// A number of bytes in the largest unit that it reaches, exact: with the bytes themselves where the
/// unit rounds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ByteCount(pub(crate) u64);

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = *self;
        let unit = UNITS.iter().find(|(_, size)| bytes >= *size);
        let Some((unit, size)) = unit else {
            return write!(f, "{bytes} bytes");
        };
        if bytes % size == 0 {
            return write!(f, "{} {unit}", bytes / size);
        }
        let hundredths = u128::from(bytes) * 100 / u128::from(*size);
        let (whole, rest) = (hundredths / 100, hundredths % 100);
        write!(f, "{whole}.{rest:02} {unit} ({bytes} bytes)")
    }
}

const UNITS: [(&str, u64); 4] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_readable_and_exact() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1 KiB"),
            (1025, "1.00 KiB (1025 bytes)"),
            (20 << 30, "20 GiB"),
            (1536 << 20, "1.50 GiB (1610612736 bytes)"),
            (u64::MAX, "16777215.99 TiB (18446744073709551615 bytes)"),
        ] {
            assert_eq!(ByteCount(bytes).to_string(), text);
        }
    }

    #[test]
    fn the_message_says_what_is_needed_and_what_is_used() {
        let excess = QuotaExcess {
            area: "alice/**".to_owned(),
            needed: 2 << 30,
            used: 19 << 30,
            size: 20 << 30,
            uploads: 1 << 30,
        };
        let message = "the quota is used up: this push needs 2 GiB, and \"alice/**\" holds 19 GiB of 20 GiB \
                       (1 GiB of it in uploads that are not finished)";
        assert_eq!(excess.to_string(), message);
        let without = QuotaExcess {
            uploads: 0,
            ..excess
        };
        assert!(without.to_string().ends_with("19 GiB of 20 GiB"));
    }
}
