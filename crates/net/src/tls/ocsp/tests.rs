//! Answers of a responder that does as it is told, and answers that were changed on their way.

use std::path::Path;

use testkit::ocsp::{Answers, Says};
use testkit::tls::{Identity, parameters, rcgen};

use super::*;
use crate::tls::chain;

fn read(identity: &Identity) -> Certificate {
    chain(&format!("data:{}", identity.certificate), Path::new("/")).unwrap().remove(0)
}

fn now() -> i64 {
    crate::wall().0 as i64
}

/// An authority, a leaf of its, and the question about the leaf.
fn world() -> (Identity, Question) {
    let root = Identity::authority("root");
    let leaf = root.issue("leaf");
    let question = Question { certificate: read(&leaf), issuer: read(&root) };
    (root, question)
}

fn ask(question: &Question, answers: &Answers, signer: Signer<'_>) -> Result<Status, Refusal> {
    let answer = answers.to(&question.request());
    question.read(&answer, signer, now()).map(|answer| answer.status)
}

#[test]
fn questions_name_the_certificate_by_three_numbers() {
    let (_, question) = world();
    let request = question.request();
    // Four sequences, and the identification: SHA-1, its two hashes of 20 bytes, the number.
    let mut id = Reader::new(&request);
    for _ in 0..5 {
        id = id.sequence().unwrap();
    }
    let mut algorithm = id.sequence().unwrap();
    assert_eq!(algorithm.expect(tag::OBJECT), Ok(SHA1));
    let key = question.key();
    assert_eq!(id.expect(tag::OCTET_STRING), Ok(&key[..20]));
    assert_eq!(id.expect(tag::OCTET_STRING), Ok(&key[20..40]));
    assert_eq!(id.expect(tag::INTEGER), Ok(&key[40..]));
    assert!(id.is_empty());
}

#[test]
fn verdicts_and_times() {
    let (root, question) = world();
    let any = Signer::Any(&[]);
    let check = |answers: Answers, expected| assert_eq!(ask(&question, &answers, any), expected);
    check(Answers::by(&root), Ok(Status::Good));
    check(Answers::by(&root).saying(Says::Revoked), Ok(Status::Revoked));
    check(Answers::by(&root).saying(Says::Unknown), Ok(Status::Unknown));
    check(Answers::by(&root).saying(Says::Refuses(3)), Err(Refusal::Unsuccessful(3)));
    check(Answers::by(&root).until(-LEEWAY_S - 5), Err(Refusal::Expired));
    check(Answers::by(&root).until(-LEEWAY_S + 60), Ok(Status::Good));
    let answer = Answers::by(&root).until(1000).to(&question.request());
    let early = now() - 60 - LEEWAY_S - 10;
    assert_eq!(question.read(&answer, any, early), Err(Refusal::NotYetValid));
    let next = question.read(&answer, any, now()).unwrap().next_update.unwrap();
    assert!((990..=1000).contains(&(next - now())), "{next}");
}

#[test]
fn signers() {
    let (root, question) = world();
    let (other, stranger) = (root.issue("other"), Identity::own("stranger"));
    let delegate = |by: Option<&Identity>| {
        let mut parameters = parameters("delegate", false);
        parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::OcspSigning];
        Identity::made(parameters, by)
    };
    let (named, own) = (delegate(Some(&root)), delegate(None));
    let trust = Trust { authorities: vec![read(&root)], depth: 9, ..Trust::default() };
    let check = |answers: Answers, any: Result<(), Refusal>, trusted: Result<(), Refusal>| {
        let of = |signer| ask(&question, &answers, signer).map(|_| ());
        assert_eq!(of(Signer::Any(&[])), any);
        assert_eq!(of(Signer::Trusted(&[], &trust)), trusted);
    };
    check(Answers::by(&root), Ok(()), Ok(()));
    check(Answers::showing(&root), Ok(()), Ok(()));
    check(Answers::by(&named), Err(Refusal::SignerMissing), Err(Refusal::SignerMissing));
    check(Answers::showing(&named), Ok(()), Ok(()));
    check(Answers::showing(&other), Ok(()), Err(Refusal::NotAuthorized));
    let untrusted = Err(Refusal::Untrusted("self-signed certificate"));
    check(Answers::showing(&own), Ok(()), untrusted.clone());
    check(Answers::showing(&stranger), Ok(()), untrusted);
    let forged = Answers::by(&Identity::authority("root"));
    check(forged, Err(Refusal::Signature), Err(Refusal::Signature));
    // One that stands among ours is believed.
    let ours = [read(&other)];
    let answer = ask(&question, &Answers::by(&other), Signer::Trusted(&ours, &trust));
    assert_eq!(answer, Ok(Status::Good));
}

#[test]
fn answers_about_others_are_none() {
    let (root, question) = world();
    let other = Question { certificate: read(&root.issue("leaf")), ..question.clone() };
    let answer = Answers::by(&root).to(&other.request());
    assert_eq!(question.read(&answer, Signer::Any(&[]), now()), Err(Refusal::NotFound));
}

#[test]
fn no_bytes_make_it_panic() {
    let (root, question) = world();
    let good = Answers::showing(&root).to(&question.request());
    assert!(is_response(&good));
    for n in 0..good.len() {
        assert!(question.read(&good[..n], Signer::Any(&[]), now()).is_err());
        assert!(!is_response(&good[..n]));
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[n] ^= 1 << bit;
            // Some bits of the frame do not matter; what matters is that nothing breaks.
            let _ = question.read(&bad, Signer::Any(&[]), now());
        }
    }
    let basic = unwrap(&good).unwrap().to_vec();
    let body = Reader::new(&basic).sequence().unwrap().next().unwrap().whole.len();
    let at = good.windows(basic.len()).position(|bytes| bytes == basic).unwrap();
    for n in at + 8..at + body {
        let mut bad = good.clone();
        bad[n] ^= 1;
        assert!(question.read(&bad, Signer::Any(&[]), now()).is_err(), "byte {n} is signed");
    }
}
