//! Parts of a call of which most are missing: each begins with presence bits of its own.

use std::net::IpAddr;

use compact_str::CompactString;
use monitor_core::call::{Detail, OAuth, Payload, Quota, SignatureId, Signed, Token};
use monitor_core::input::Endpoint;

use super::{Malformed, Reader, code, endpoint, is_v4, number, text};

/// Bits of fields that are there, in their order.
fn bits<const N: usize>(there: [bool; N]) -> u64 {
    there.iter().enumerate().fold(0, |bits, (at, there)| bits | u64::from(*there) << at)
}

/// What is there of a part whose fields are read in their order.
struct Fields<'r, 'a> {
    from: &'r mut Reader<'a>,
    bits: u64,
}

impl<'r, 'a> Fields<'r, 'a> {
    fn of(from: &'r mut Reader<'a>) -> Result<Fields<'r, 'a>, Malformed> {
        let bits = from.number()?;
        Ok(Fields { from, bits })
    }

    fn next<T>(
        &mut self,
        read: impl FnOnce(&mut Reader<'a>) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        let is_there = self.bits & 1 != 0;
        self.bits >>= 1;
        if is_there { read(self.from).map(Some) } else { Ok(None) }
    }

    fn list(&mut self) -> Result<Vec<CompactString>, Malformed> {
        let read = |from: &mut Reader<'a>| (0..from.number()?).map(|_| from.text()).collect();
        Ok(self.next(read)?.unwrap_or_default())
    }
}

fn put_texts(out: &mut Vec<u8>, texts: &[CompactString]) {
    if !texts.is_empty() {
        number(out, texts.len() as u64);
        texts.iter().for_each(|each| text(out, each));
    }
}

fn signed(from: &mut Reader<'_>) -> Result<i64, Malformed> {
    from.array().map(i64::from_le_bytes)
}

/// Calls used and allowed.
pub(super) fn put_quota(out: &mut Vec<u8>, quota: &Quota) {
    let Quota { used, limit, remaining } = quota;
    let fields = [used, limit, remaining];
    number(out, bits(fields.map(Option::is_some)));
    fields.into_iter().flatten().for_each(|field| number(out, u64::from(*field)));
}

/// The same, read.
pub(super) fn quota(from: &mut Reader<'_>) -> Result<Quota, Malformed> {
    let mut fields = Fields::of(from)?;
    let mut next = || fields.next(|from| from.narrow("quota"));
    Ok(Quota { used: next()?, limit: next()?, remaining: next()? })
}

/// What a bearer token says.
pub(super) fn put_token(out: &mut Vec<u8>, token: &Token) {
    let Token {
        algorithm,
        issuer,
        client,
        audience,
        scope,
        expires,
        not_before,
        issued,
        auth_time,
        acr,
        amr,
    } = token;
    let names = [algorithm, issuer, client, acr];
    let times = [expires, not_before, issued, auth_time];
    let lists = [audience, scope, amr];
    let [n0, n1, n2, n3] = names.map(Option::is_some);
    let [t0, t1, t2, t3] = times.map(Option::is_some);
    let [l0, l1, l2] = lists.map(|list| !list.is_empty());
    number(out, bits([n0, n1, n2, n3, t0, t1, t2, t3, l0, l1, l2]));
    names.into_iter().flatten().for_each(|name| text(out, name));
    times.into_iter().flatten().for_each(|time| out.extend_from_slice(&time.to_le_bytes()));
    lists.into_iter().for_each(|list| put_texts(out, list));
}

/// The same, read.
pub(super) fn token(from: &mut Reader<'_>) -> Result<Token, Malformed> {
    let mut fields = Fields::of(from)?;
    let mut name = || fields.next(Reader::text);
    let (algorithm, issuer, client, acr) = (name()?, name()?, name()?, name()?);
    let mut time = || fields.next(signed);
    let (expires, not_before, issued, auth_time) = (time()?, time()?, time()?, time()?);
    let (audience, scope, amr) = (fields.list()?, fields.list()?, fields.list()?);
    Ok(Token {
        algorithm,
        issuer,
        client,
        audience,
        scope,
        expires,
        not_before,
        issued,
        auth_time,
        acr,
        amr,
    })
}

/// What not every call says.
pub(super) fn put_detail(out: &mut Vec<u8>, detail: &Detail) {
    let Detail {
        forwarded_for,
        account,
        amount,
        parts,
        name,
        signed,
        payload,
        // Behind all else: they came later.
        fields: _,
        oauth: _,
    } = detail;
    let address = forwarded_for.map(|ip| Endpoint::new(ip, 0));
    let is_four = address.as_ref().is_some_and(is_v4);
    number(
        out,
        bits([
            is_four,
            address.is_some(),
            account.is_some(),
            amount.is_some(),
            parts.is_some(),
            name.is_some(),
            signed.is_some(),
            payload.is_some(),
        ]),
    );
    address.iter().for_each(|address| endpoint(out, address));
    [account, amount].into_iter().flatten().for_each(|known| text(out, known));
    parts.iter().for_each(|parts| number(out, u64::from(*parts)));
    name.iter().for_each(|name| text(out, name));
    // What a signature was under the secret before came later.
    if let Some(Signed { fingerprint, former: _, nonce, stated_ms }) = signed {
        number(out, bits([fingerprint.is_some(), nonce.is_some(), stated_ms.is_some()]));
        fingerprint.iter().for_each(|id| out.extend_from_slice(&id.0.to_le_bytes()));
        [nonce, stated_ms].into_iter().flatten().for_each(|known| number(out, *known));
    }
    payload.iter().for_each(|payload| out.push(*payload as u8));
}

/// What a request of OAuth 2.0 names.
pub(super) fn put_oauth(out: &mut Vec<u8>, oauth: &OAuth) {
    // Where its answer went came later.
    let OAuth { client, redirect, user_code, answered: _, carries: _ } = oauth;
    number(out, bits([client.is_some(), redirect.is_some(), user_code.is_some()]));
    client.iter().for_each(|id| out.extend_from_slice(&id.0.to_le_bytes()));
    redirect.iter().for_each(|redirect| text(out, redirect));
    user_code.iter().for_each(|id| out.extend_from_slice(&id.0.to_le_bytes()));
}

/// The same, read.
pub(super) fn oauth(from: &mut Reader<'_>) -> Result<OAuth, Malformed> {
    let mut fields = Fields::of(from)?;
    let id = |from: &mut Reader<'_>| Ok(SignatureId(u64::from_le_bytes(from.array()?)));
    Ok(OAuth {
        client: fields.next(id)?,
        redirect: fields.next(Reader::text)?,
        user_code: fields.next(id)?,
        answered: None,
        carries: None,
    })
}

fn signature(from: &mut Reader<'_>) -> Result<Signed, Malformed> {
    let mut fields = Fields::of(from)?;
    Ok(Signed {
        fingerprint: fields.next(|from| Ok(SignatureId(u64::from_le_bytes(from.array()?))))?,
        former: None,
        nonce: fields.next(Reader::number)?,
        stated_ms: fields.next(Reader::number)?,
    })
}

/// The same, read.
pub(super) fn detail(from: &mut Reader<'_>) -> Result<Detail, Malformed> {
    let mut fields = Fields::of(from)?;
    let is_four = fields.next(|_| Ok(()))?.is_some();
    let address = fields.next(|from| from.endpoint(is_four))?;
    let forwarded_for = address.map(|address| IpAddr::from(address.addr).to_canonical());
    Ok(Detail {
        forwarded_for,
        account: fields.next(Reader::text)?,
        amount: fields.next(Reader::text)?,
        parts: fields.next(|from| from.narrow("number of parts"))?,
        name: fields.next(Reader::text)?,
        signed: fields.next(signature)?,
        payload: fields.next(|from| code(Payload::ALL, from.byte()?, "payload").copied())?,
        fields: None,
        oauth: None,
    })
}
