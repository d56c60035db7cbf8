//! Checks the bucket for backups.

use super::{
    super::{
        ProviderKind, S3,
        choice::Choice as _,
        limits,
        placed::{Placed, span_of},
        problem::Problem,
        schema::{self, Word},
    },
    Problems, shaped,
};

pub(super) fn check(
    problems: &mut Problems,
    document: &schema::Document,
    written: Option<&Placed<schema::S3>>,
) -> Option<S3> {
    const HTTPS: u16 = 443;
    let section = written?;
    let written = &section.value;
    for (name, word) in [("bucket", &written.bucket), ("region", &written.region)] {
        if word.is_none() {
            problems.add(
                Problem::new(span_of(section), format!("`s3` has no `{name}`"))
                    .hint("for example: `s3: {bucket: my-backups, region: eu-central-1}`"),
            );
        }
    }
    let bucket = shaped(problems, written.bucket.as_ref(), limits::BUCKET);
    let region = shaped(problems, written.region.as_ref(), limits::BUCKET_REGION);
    let endpoint = shaped(problems, written.endpoint.as_ref(), limits::ENDPOINT);
    let path = shaped(problems, written.path.as_ref(), limits::BUCKET_PATH);
    let profile = shaped(problems, written.profile.as_ref(), limits::INSTANCE_PROFILE);
    if let Some(word) = &written.profile {
        check_profile(problems, document, written, word);
    }
    let cluster = document.cluster.as_ref();
    let (bucket, region) = (bucket?, region?);
    let endpoint = endpoint.unwrap_or_else(|| format!("s3.{region}.amazonaws.com"));
    let (host, port) = match endpoint.split_once(':') {
        Some((host, port)) => (host.to_owned(), port.parse().unwrap_or(HTTPS)),
        None => (endpoint, HTTPS),
    };
    Some(S3 {
        bucket,
        region,
        endpoint: host,
        port,
        path: path.unwrap_or_else(|| format!("/{}", cluster.map_or("", |it| &it.value))),
        path_style: written.path_style.unwrap_or(limits::PATH_STYLE),
        create: written.create.unwrap_or(limits::CREATE_BUCKET),
        profile,
    })
}

/// An instance profile is EC2's, and pgherd's own machine does not have it.
fn check_profile(
    problems: &mut Problems,
    document: &schema::Document,
    written: &schema::S3,
    word: &Word,
) {
    let provider = document.provider.as_ref();
    let kind = provider.and_then(|it| it.value.kind.as_ref());
    let is_other = |kind: &&Word| match ProviderKind::of(&kind.value) {
        Some(ProviderKind::Docker | ProviderKind::Existing) => true,
        Some(ProviderKind::Aws) | None => false,
    };
    if let Some(kind) = kind.filter(is_other) {
        problems.add(
            Problem::new(
                span_of(word),
                format!("there is no instance profile with `kind: {}`", kind.value),
            )
            .also(span_of(kind), "the kind")
            .hint("leave `profile` out, and give an access key: `s3_key` and `s3_secret` among the secrets"),
        );
    }
    if written.create == Some(true) {
        problems.add(
            Problem::new(
                span_of(word),
                "pgherd cannot make a bucket without an access key",
            )
            .label("only the host with the role `backup` has the profile")
            .hint("make the bucket yourself, and leave `create` out"),
        );
    }
}
