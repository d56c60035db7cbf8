//! Signs requests to stores that speak S3: AWS's Signature Version 4.
//!
//! The format is that of "Signature Calculations for the Authorization Header" in the API reference of S3.

use jiff::Timestamp;
use ring::{
    digest::{SHA256, digest},
    hmac,
};

use crate::secret::Secret;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Who signs, and where it counts.
pub(super) struct Signer<'a> {
    pub(super) key: &'a Secret,
    pub(super) secret: &'a Secret,
    pub(super) region: &'a str,
}

/// A request without its signature.
pub(super) struct Unsigned<'a> {
    pub(super) method: &'a str,
    /// The value of `Host`.
    pub(super) host: &'a str,
    /// As it is sent.
    pub(super) path: &'a str,
    /// Names and values, as they are meant.
    pub(super) query: &'a [(&'a str, &'a str)],
    /// Headers that are signed besides `Host` and those that are added; their names in small letters.
    pub(super) headers: &'a [(&'a str, String)],
    pub(super) body: &'a [u8],
}

impl Signer<'_> {
    /// The headers that the request needs in addition.
    pub(super) fn sign(
        &self,
        request: &Unsigned<'_>,
        at: Timestamp,
    ) -> [(&'static str, String); 3] {
        let time = at.strftime("%Y%m%dT%H%M%SZ").to_string();
        let day = &time[..8];
        let content = hex(digest(&SHA256, request.body).as_ref());
        let mut headers = vec![
            ("host", request.host),
            ("x-amz-content-sha256", &content),
            ("x-amz-date", &time),
        ];
        headers.extend(
            request
                .headers
                .iter()
                .map(|(name, value)| (*name, value.as_str())),
        );
        headers.sort_unstable();
        let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let lines: String = headers
            .iter()
            .map(|(name, value)| format!("{name}:{}\n", value.trim()))
            .collect();
        let canonical = format!(
            "{}\n{}\n{}\n{lines}\n{names}\n{content}",
            request.method,
            request.path,
            query(request.query)
        );
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let text = format!(
            "{ALGORITHM}\n{time}\n{scope}\n{}",
            hex(digest(&SHA256, canonical.as_bytes()).as_ref())
        );
        let signature = hex(mac(self.key_of(day).as_ref(), &text).as_ref());
        let authorization = format!(
            "{ALGORITHM} Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
            self.key.expose()
        );
        [
            ("x-amz-content-sha256", content),
            ("x-amz-date", time),
            ("authorization", authorization),
        ]
    }

    /// The key for one day and one region.
    fn key_of(&self, day: &str) -> hmac::Tag {
        let secret = format!("AWS4{}", self.secret.expose());
        let mut tag = mac(secret.as_bytes(), day);
        for part in [self.region, "s3", "aws4_request"] {
            tag = mac(tag.as_ref(), part);
        }
        tag
    }
}

fn mac(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The query as it is sent: sorted, since the signature is about the sorted one.
pub(super) fn query(pairs: &[(&str, &str)]) -> String {
    let mut pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
        .collect();
    pairs.sort_unstable();
    pairs.join("&")
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of AWS's own documentation, with its access key.
    #[test]
    fn it_signs_as_aws_says() {
        let date = ("date", "Fri, 24 May 2013 00:00:00 GMT".to_owned());
        let class = ("x-amz-storage-class", "REDUCED_REDUNDANCY".to_owned());
        let range = ("range", "bytes=0-9".to_owned());
        let examples: [(_, _, &[_], &[_], _, _); 4] = [
            (
                "GET",
                "/test.txt",
                &[],
                &[range],
                "",
                "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            ),
            (
                "PUT",
                "/test%24file.text",
                &[],
                &[date, class],
                "Welcome to Amazon S3.",
                "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
            ),
            (
                "GET",
                "/",
                &[("lifecycle", "")],
                &[],
                "",
                "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
            ),
            (
                "GET",
                "/",
                &[("prefix", "J"), ("max-keys", "2")],
                &[],
                "",
                "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            ),
        ];
        let (key, secret) = (
            Secret::new("AKIAIOSFODNN7EXAMPLE"),
            Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        );
        let signer = Signer {
            key: &key,
            secret: &secret,
            region: "us-east-1",
        };
        let at: Timestamp = "2013-05-24T00:00:00Z".parse().unwrap();
        for (method, path, query, headers, body, signature) in examples {
            let request = Unsigned {
                method,
                host: "examplebucket.s3.amazonaws.com",
                path,
                query,
                headers,
                body: body.as_bytes(),
            };
            let [_, _, (_, authorization)] = signer.sign(&request, at);
            let end = authorization.rsplit('=').next();
            assert_eq!(end, Some(signature), "{method} {path} {query:?}");
            let begin = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, ";
            assert!(authorization.starts_with(begin), "{authorization}");
        }
    }

    #[test]
    fn a_query_is_sent_as_it_is_signed() {
        let sent = query(&[("prefix", "a/b c"), ("delimiter", "/"), ("versions", "")]);
        assert_eq!(sent, "delimiter=%2F&prefix=a%2Fb%20c&versions=");
    }
}
