//! Checks the bucket for backups.

use super::{
    super::{
        S3, limits,
        placed::{Placed, span_of},
        problem::Problem,
        schema,
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
    })
}
