use proptest::prelude::*;

use super::*;

fn header(bytes: &[u8]) -> (Option<String>, usize) {
    match parse(bytes) {
        Ok(ParsedHeader::Header { source, length }) => {
            (source.map(|source| source.to_string()), length)
        }
        other => panic!("{other:?}: {:?}", String::from_utf8_lossy(bytes)),
    }
}

fn version2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("short").to_be_bytes();
    [V2_SIGNATURE, &[command, family], &length, body].concat()
}

#[test]
fn a_line_of_version_1_is_read() {
    for (line, source) in [
        (
            "PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\n",
            Some("192.0.2.7:56324"),
        ),
        (
            "PROXY TCP4 192.0.2.7 10.0.0.1 0 65535\r\n",
            Some("192.0.2.7:0"),
        ),
        (
            "PROXY TCP6 2001:db8::7 fd00::1 56324 443\r\n",
            Some("[2001:db8::7]:56324"),
        ),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
    ] {
        let bytes = [line.as_bytes(), b"\x16\x03\x01"].concat();
        assert_eq!(
            header(&bytes),
            (source.map(str::to_owned), line.len()),
            "{line:?}"
        );
        for cut in 0..line.len() {
            assert_eq!(
                parse(&bytes[..cut]).expect("not broken"),
                ParsedHeader::Incomplete,
                "{line:?} {cut}"
            );
        }
    }
}

#[test]
fn a_header_of_version_2_is_read() {
    let v4 = [&[192, 0, 2, 7, 10, 0, 0, 1][..], &[0xdc, 0x04, 0x01, 0xbb]].concat();
    let v6: Vec<u8> = "2001:db8::7"
        .parse::<Ipv6Addr>()
        .expect("valid")
        .octets()
        .into_iter()
        .chain([0; 20])
        .collect();
    let fields = [&v4[..], &[0x04, 0, 2, 1, 2]].concat();
    for (bytes, source) in [
        (version2(0x21, 0x11, &v4), Some("192.0.2.7:56324")),
        (version2(0x21, 0x11, &fields), Some("192.0.2.7:56324")),
        (version2(0x21, 0x21, &v6), Some("[2001:db8::7]:0")),
        (version2(0x20, 0x00, &[]), None),
        (version2(0x20, 0x11, &v4), None),
        (version2(0x21, 0x00, &[1, 2, 3]), None),
        (version2(0x21, 0x31, &[0; 216]), None),
    ] {
        assert_eq!(
            header(&bytes),
            (source.map(str::to_owned), bytes.len()),
            "{bytes:?}"
        );
        for cut in 0..bytes.len() {
            assert_eq!(
                parse(&bytes[..cut]).expect("not broken"),
                ParsedHeader::Incomplete,
                "{bytes:?} {cut}"
            );
        }
    }
}

#[test]
fn what_is_no_header_is_left_alone() {
    for bytes in [
        &b"\x16\x03\x01"[..],
        b"GET / HTTP/1.1",
        b"PUT ",
        b"PROXX",
        b"proxy ",
        b"\r\n\r\nx",
        b"\0",
    ] {
        assert_eq!(
            parse(bytes).expect("not broken"),
            ParsedHeader::Absent,
            "{bytes:?}"
        );
    }
}

#[test]
fn what_begins_like_a_header_and_is_none_is_refused() {
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1_HEADER));
    for line in [
        "PROXY TCP4 192.0.2.7 10.0.0.1 56324\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 56324 443 \r\n",
        "PROXY TCP4  192.0.2.7 10.0.0.1 56324 443\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 056324 443\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 +56 443\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 65536 443\r\n",
        "PROXY TCP4 192.0.2.07 10.0.0.1 1 443\r\n",
        "PROXY TCP4 2001:db8::7 fd00::1 1 443\r\n",
        "PROXY TCP6 192.0.2.7 10.0.0.1 1 443\r\n",
        "PROXY UDP4 192.0.2.7 10.0.0.1 1 443\r\n",
        "PROXY tcp4 192.0.2.7 10.0.0.1 1 443\r\n",
        "PROXY \r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 1 443\n",
        &long,
        &long[..MAX_V1_HEADER],
    ] {
        assert!(
            matches!(parse(line.as_bytes()), Err(ProxyProtocolError::Malformed)),
            "{line:?}"
        );
    }
    for bytes in [
        version2(0x11, 0x11, &[0; 12]),
        version2(0x22, 0x11, &[0; 12]),
        version2(0x21, 0x11, &[0; 11]),
        version2(0x21, 0x21, &[0; 12]),
        version2(0x21, 0x41, &[0; 12]),
        version2(0x21, 0x13, &[0; 12]),
    ] {
        assert!(
            matches!(parse(&bytes), Err(ProxyProtocolError::Malformed)),
            "{bytes:?}"
        );
    }
    let endless = version2(0x21, 0x11, &[0; MAX_V2_HEADER]);
    assert!(
        matches!(parse(&endless[..16]), Err(ProxyProtocolError::TooLong)),
        "before it is read"
    );
}

#[tokio::test]
async fn what_follows_is_kept() {
    let bytes = b"PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\n\x16\x03\x01rest";
    for at_once in [1, 7, 1000] {
        let mut io = tokio_test(bytes, at_once);
        let ProxyHeader { source, mut rest } = read(&mut io).await.expect("a header");
        io.read_to_end(&mut rest).await.expect("read");
        assert_eq!(source, Some("192.0.2.7:56324".parse().expect("valid")));
        assert_eq!(rest, b"\x16\x03\x01rest");
    }
    let mut none = tokio_test(b"\x16\x03", 1);
    assert_eq!(
        read(&mut none).await.expect("none"),
        ProxyHeader {
            source: None,
            rest: vec![0x16]
        }
    );
    let mut cut = tokio_test(&bytes[..20], 1000);
    assert!(matches!(
        read(&mut cut).await,
        Err(ProxyProtocolError::Closed(_))
    ));
    assert_eq!(read(&mut tokio_test(b"", 1)).await.expect("none").rest, b"");
}

/// These bytes, so many at once.
fn tokio_test(bytes: &[u8], at_once: usize) -> impl AsyncRead + Unpin + use<> {
    let (mut to, from) = tokio::io::duplex(at_once);
    let bytes = bytes.to_vec();
    tokio::spawn(async move { tokio::io::AsyncWriteExt::write_all(&mut to, &bytes).await });
    from
}

proptest! {
    #[test]
    fn nothing_panics(bytes: Vec<u8>, kind in 0..3) {
        let signature = [&b""[..], V1_SIGNATURE, V2_SIGNATURE][kind as usize];
        let _ = parse(&[signature, &bytes[..]].concat());
        let _ = parse(&[V2_SIGNATURE, b"\x21\x11\0\x0c", &bytes[..]].concat());
    }

    #[test]
    fn what_a_proxy_writes_comes_back(address: IpAddr, port: u16, rest: Vec<u8>) {
        let source = SocketAddr::new(address, port);
        let (family, code, octets) = match address {
            IpAddr::V4(v4) => ("TCP4", 0x11, v4.octets().to_vec()),
            IpAddr::V6(v6) => ("TCP6", 0x21, v6.octets().to_vec()),
        };
        let line = format!("PROXY {family} {address} {address} {port} 443\r\n");
        let body = [&octets[..], &octets, &port.to_be_bytes(), &[1, 0xbb]].concat();
        for bytes in [line.into_bytes(), version2(0x21, code, &body)] {
            let all = [&bytes[..], &rest].concat();
            prop_assert_eq!(parse(&all).expect("a header"), ParsedHeader::Header { source: Some(source), length: bytes.len() });
        }
    }

    /// More bytes never change what was found.
    #[test]
    fn what_is_decided_stays(bytes: Vec<u8>, kind in 0..3, more: Vec<u8>) {
        let bytes = [[&b""[..], V1_SIGNATURE, V2_SIGNATURE][kind as usize], &bytes[..]].concat();
        let found = format!("{:?}", parse(&bytes));
        if found != "Ok(Incomplete)" {
            prop_assert_eq!(found, format!("{:?}", parse(&[bytes, more].concat())));
        }
    }
}
