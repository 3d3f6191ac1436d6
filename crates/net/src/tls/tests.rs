//! Both sides against each other over real sockets, and chains that are checked.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber,
};
use system::driver::spawn;

use super::*;
use crate::stream::Stream;
use crate::testing::{on_each, pattern, read_all, tcp_pair, unix_pair};
use crate::{Data, FileRange, OutQueue};

fn algorithms(protocols: Protocols) -> Algorithms {
    Algorithms { protocols, ciphers: "HIGH".into(), suites: None, groups: "auto".into() }
}

/// An authority or a leaf, and the key that signs for it.
struct Made {
    pem: String,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
    params: CertificateParams,
}

fn params(name: &str, is_ca: bool) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params
}

fn made(params: CertificateParams, by: Option<&Made>) -> Made {
    let key = KeyPair::generate().unwrap();
    let certificate = match by {
        None => params.self_signed(&key).unwrap(),
        Some(by) => params.signed_by(&key, &by.issuer).unwrap(),
    };
    let key_pem = key.serialize_pem();
    let issuer = Issuer::new(params.clone(), key);
    Made { pem: certificate.pem(), key_pem, issuer, params }
}

impl Made {
    fn read(&self) -> Certificate {
        chain(&format!("data:{}", self.pem), Path::new("/")).unwrap().remove(0)
    }

    fn certified(&self) -> Arc<CertifiedKey> {
        let (pem, key) = (format!("data:{}", self.pem), format!("data:{}", self.key_pem));
        certified(&pem, &key, &[], Path::new("/")).unwrap()
    }
}

fn server(protocols: Protocols, asks: bool) -> Arc<ServerConfig> {
    let server = Server {
        algorithms: algorithms(protocols),
        prefers_own: false,
        certificates: vec![made(params("localhost", false), None).certified().into()],
        names: Vec::new(),
        alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        asks: asks.then(Vec::new),
        record: 16 << 10,
        tickets: Some(Keys::Own),
        store: None,
        lifetime_s: 300,
        key_log: None,
        early_bytes: 0,
    };
    server.compile().unwrap()
}

fn client(protocols: Protocols, shows: Option<&Made>) -> Arc<ClientConfig> {
    let client = Client {
        algorithms: algorithms(protocols),
        certificate: shows.map(Made::certified),
        names_server: true,
        resumes: true,
        alpn: vec![b"http/1.1".to_vec()],
        key_log: None,
    };
    client.compile().unwrap()
}

async fn secure(
    (ours, theirs): (Stream, Stream),
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
) -> (Stream, Stream) {
    let server = server.clone();
    let accepted = Rc::new(std::cell::RefCell::new(None));
    let place = accepted.clone();
    spawn(async move {
        accept(&theirs, None, |_| Choice::Serve(server)).await.unwrap();
        *place.borrow_mut() = Some(theirs);
    });
    connect(&ours, client.clone(), server_name("localhost")).await.unwrap();
    loop {
        if let Some(theirs) = accepted.borrow_mut().take() {
            return (ours, theirs);
        }
        system::driver::yield_now().await;
    }
}

const VERSIONS: [Protocols; 2] =
    [Protocols { tls12: true, tls13: false }, Protocols { tls12: false, tls13: true }];

#[test]
fn bytes_files_and_their_end_arrive_in_both_directions() {
    let file = {
        let path = std::env::temp_dir().join(format!("heng-tls-{}", std::process::id()));
        std::fs::write(&path, pattern(300_000)).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        Rc::new(std::os::fd::OwnedFd::from(file))
    };
    on_each(|| async {
        for protocols in VERSIONS {
            let (server, client) = (server(protocols, false), client(protocols, None));
            for pair in [tcp_pair().await, unix_pair()] {
                let (ours, theirs) = secure(pair, &client, &server).await;
                let tls = theirs.tls().unwrap();
                assert_eq!(tls.alpn().unwrap(), b"http/1.1");
                assert_eq!(tls.server_name(), Some("localhost"));
                assert_eq!(ours.tls().unwrap().cipher(), tls.cipher());
                let sent = pattern(3 << 20);
                let expected = sent.clone();
                let file = file.clone();
                spawn(async move {
                    ours.write_all(&sent).await.unwrap();
                    ours.shutdown_write().unwrap();
                    assert!(read_all(&ours).await == [b"head ", &pattern(300_000)[..]].concat());
                });
                assert!(read_all(&theirs).await == expected);
                let mut queue = OutQueue::new();
                queue.push(Data::from(&b"head "[..]));
                queue.push(FileRange { file, offset: 0, length: 300_000 });
                std::future::poll_fn(|cx| queue.poll_flush(cx, &theirs)).await.unwrap();
                drop(theirs);
                while system::driver::live_tasks() > 0 {
                    system::driver::yield_now().await;
                }
            }
        }
    });
}

/// What TLS holds back waits, too: whoever stops flushing an empty queue must not stop early.
#[test]
fn a_queue_is_not_empty_while_tls_holds_bytes_back() {
    on_each(|| async {
        let (server, client) = (server(VERSIONS[1], false), client(VERSIONS[1], None));
        let (ours, theirs) = secure(unix_pair(), &client, &server).await;
        let piece = pattern(60_000);
        let mut queue = OutQueue::new();
        let mut count = 0;
        std::future::poll_fn(|cx| {
            loop {
                queue.push(Data::from(piece.clone()));
                count += 1;
                if queue.poll_flush(cx, &theirs).is_pending() {
                    return std::task::Poll::Ready(());
                }
            }
        })
        .await;
        assert_eq!(queue.len_bytes(), 0);
        assert!(!queue.is_empty());
        spawn(async move {
            while !queue.is_empty() {
                std::future::poll_fn(|cx| queue.poll_flush(cx, &theirs)).await.unwrap();
            }
        });
        assert!(read_all(&ours).await == piece.repeat(count));
    });
}

#[test]
fn sessions_are_resumed_and_certificates_are_shown() {
    on_each(|| async {
        let mine = made(params("client", false), None);
        for protocols in VERSIONS {
            let (server, client) = (server(protocols, true), client(protocols, Some(&mine)));
            for resumed in [false, true] {
                let (ours, theirs) = secure(tcp_pair().await, &client, &server).await;
                theirs.write_all(b"tickets come with the first bytes").await.unwrap();
                assert_eq!(ours.read(&mut [0; 99]).await.unwrap(), 33);
                let tls = theirs.tls().unwrap();
                assert_eq!(tls.is_resumed(), resumed, "{}", tls.protocol());
                assert_eq!(tls.certificate().unwrap().subject_text(), "CN=client");
                let trust = Rc::new(Trust { depth: 1, ..Trust::default() });
                assert_eq!(tls.verdict(&trust, 1_800_000_000), Some(Err(fault(18))));
            }
        }
    });
}

#[test]
fn those_who_cannot_agree_are_told_and_both_know_why() {
    on_each(|| async {
        let (ours, theirs) = tcp_pair().await;
        let server = server(VERSIONS[0], false);
        spawn(async move {
            let failure = accept(&theirs, None, |_| Choice::Serve(server)).await.unwrap_err();
            assert_eq!(
                failure.to_string(),
                "SSL_do_handshake() failed (SSL: error:0A000102:SSL routines::unsupported protocol)"
            );
        });
        let client = client(VERSIONS[1], None);
        let failure = connect(&ours, client.clone(), server_name("")).await.unwrap_err();
        assert!(failure.to_string().contains("tlsv1 alert protocol version"), "{failure}");
        let (ours, theirs) = tcp_pair().await;
        spawn(async move {
            let failure = accept(&theirs, None, |_| Choice::Reject).await.unwrap_err();
            assert_eq!(failure.to_string(), "handshake rejected");
        });
        let failure = connect(&ours, client, server_name("")).await.unwrap_err();
        assert!(failure.to_string().contains("unrecognized name"), "{failure}");
    });
}

fn fault(number: u8) -> Fault {
    Fault { number, text: text_of(number) }
}

fn text_of(number: u8) -> &'static str {
    match number {
        10 => "certificate has expired",
        18 => "self-signed certificate",
        19 => "self-signed certificate in certificate chain",
        20 => "unable to get local issuer certificate",
        21 => "unable to verify the first certificate",
        22 => "certificate chain too long",
        23 => "certificate revoked",
        3 => "unable to get certificate CRL",
        26 => "unsuitable certificate purpose",
        _ => "invalid CA certificate",
    }
}

#[test]
fn chains_are_judged_as_openssl_does() {
    let root = made(params("root", true), None);
    let middle = made(params("middle", true), Some(&root));
    let lower = made(params("lower", true), Some(&middle));
    let leaf = made(params("leaf", false), Some(&lower));
    let short = made(params("short", false), Some(&root));
    let own = made(params("own", false), None);
    let mut for_servers = params("server", false);
    for_servers.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let for_servers = made(for_servers, Some(&root));
    let by_leaf = made(params("by leaf", false), Some(&short));
    let now = 1_800_000_000;
    let check = |sent: &[&Made], trusted: &[&Made], depth, expected: Option<u8>| {
        let read = |list: &[&Made]| list.iter().map(|one| one.read()).collect::<Vec<_>>();
        let trust = Trust { authorities: read(trusted), revocations: Vec::new(), depth };
        let verdict = trust.check(&read(sent), Purpose::Client, now);
        assert_eq!(
            verdict.err().map(|fault| (fault.number, fault.text)),
            expected.map(|number| (number, text_of(number))),
            "{}",
            sent.len()
        );
    };
    check(&[&short], &[&root], 1, None);
    check(&[&short], &[&root], 0, None);
    check(&[&short], &[], 1, Some(21));
    check(&[&own], &[&root], 1, Some(18));
    check(&[&own], &[&own], 1, None);
    check(&[&short, &root], &[], 1, Some(19));
    check(&[&leaf, &lower, &middle], &[&root], 2, None);
    check(&[&leaf, &lower, &middle], &[&root], 1, Some(22));
    check(&[&leaf, &lower], &[&root], 3, Some(20));
    check(&[&leaf], &[&lower, &middle, &root], 2, None);
    check(&[&for_servers], &[&root], 1, Some(26));
    check(&[&by_leaf, &short], &[&root], 1, Some(79));
    let expired = Trust { authorities: vec![root.read()], revocations: Vec::new(), depth: 1 };
    let verdict = expired.check(&[short.read()], Purpose::Client, i64::MAX / 2);
    assert_eq!(verdict, Err(fault(10)));
}

#[test]
fn revocation_lists_say_who_is_out() {
    let mut authority = params("root", true);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let root = made(authority, None);
    let numbered = |n: u64| {
        let mut params = params("leaf", false);
        params.serial_number = Some(SerialNumber::from(n));
        made(params, Some(&root))
    };
    let (good, bad) = (numbered(1), numbered(2));
    let year = |n| rcgen::date_time_ymd(n, 1, 1);
    let list = CertificateRevocationListParams {
        this_update: year(2020),
        next_update: year(2090),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from(2),
            revocation_time: year(2021),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&root.issuer).unwrap().pem().unwrap();
    let list = format!("data:{list}");
    let revocations = revocations(&list, Path::new("/")).unwrap();
    let other = made(params("other", true), None);
    let by_other = made(params("leaf", false), Some(&other));
    let trust = Trust { authorities: vec![root.read(), other.read()], revocations, depth: 1 };
    let check = |one: &Made| trust.check(&[one.read()], Purpose::Client, 1_800_000_000).err();
    assert_eq!(check(&good), None);
    assert_eq!(check(&bad), Some(fault(23)));
    assert_eq!(check(&by_other), Some(fault(3)));
    assert!(root.params.is_ca != IsCa::NoCa);
}

#[test]
fn faults_of_files_are_told_in_openssl_s_words() {
    let one = made(params("one", false), None);
    let other = made(params("other", false), None);
    let check = |certificate: &str, key: &str, expected: &str| {
        let error = certified(certificate, key, &[], Path::new("/p")).err().unwrap_or_default();
        assert!(error.starts_with(expected), "{error}");
    };
    let data = |text: &str| format!("data:{text}");
    check("none.crt", "none.key", "cannot load certificate \"/p/none.crt\": BIO_new_file() failed");
    check(
        "data:x",
        "none.key",
        "cannot load certificate \"data:x\": PEM_read_bio_X509_AUX() failed",
    );
    check(
        &data(&one.pem),
        "none.key",
        "cannot load certificate key \"/p/none.key\": BIO_new_file()",
    );
    check(&data(&one.pem), "data:x", "cannot load certificate key \"data:x\": PEM_read_bio_Priv");
    check(&data(&one.pem), &data(&other.key_pem), "SSL_CTX_use_PrivateKey(\"data:");
    check(&data(&one.pem), &data(&one.key_pem), "");
}
