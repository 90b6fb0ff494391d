//! `sink` of `type: hdfs`: native RPC or WebHDFS, by the address's scheme.

use std::path::{Path, PathBuf};

use crate::config::{HdfsConfig, HdfsProtocol, Secret, reader::Section, value::expected};

/// Keys of an HDFS sink that no other sink has.
pub(super) const HDFS_KEYS: [&str; 5] = ["url", "user", "delegation_token", "hadoop_conf_dir", "ca_file"];

/// What an address looks like.
const EXAMPLE: &str = "an address such as hdfs://namenode:8020 or http://namenode:9870";

/// An HDFS sink.
pub(super) fn read(section: &Section<'_>, folder: &Path) -> Option<HdfsConfig> {
    let urls = section.required_text("url", "hdfs://namenode:8020, or http://namenode:9870 for WebHDFS");
    let urls = urls.and_then(|text| match parse_urls(&text) {
        Ok(urls) => Some(urls),
        Err(message) => {
            section.fault("url", message);
            None
        }
    });
    let base_path = section.required_text("base_path", "the folder to write to, such as /data/lake");
    let base_path = base_path.and_then(|text| match parse_base_path(&text) {
        Ok(path) => Some(path),
        Err(message) => {
            section.fault("base_path", message);
            None
        }
    });
    let user = section.get("user", |text| match text {
        "" => Err("must not be empty; leave it out for the user of this process".to_owned()),
        _ if text.contains(char::is_whitespace) || text.contains(char::is_control) => Err(expected("a user", text)),
        _ => Ok(text.to_owned()),
    });
    let delegation_token = section.text("delegation_token").filter(|text| !text.is_empty()).map(Secret::new);
    let conf_dir =
        existing(section, folder, "hadoop_conf_dir", Path::is_dir, "a folder with core-site.xml and hdfs-site.xml");
    let ca_file = existing(section, folder, "ca_file", Path::is_file, "a file of certificates in PEM");
    let urls = urls?;
    let is_native = urls.iter().any(|url| url.starts_with("hdfs://"));
    let only = |key: &str, given: bool, what: &str| {
        if given {
            section.fault(key, format!("has no meaning with this `url`; it belongs to {what}"));
        }
    };
    if is_native {
        only(
            "delegation_token",
            delegation_token.is_some(),
            "WebHDFS; here Hadoop's own HADOOP_TOKEN_FILE_LOCATION is read",
        );
        only("ca_file", ca_file.is_some(), "https://");
    } else {
        only("hadoop_conf_dir", conf_dir.is_some(), "hdfs://");
        only("ca_file", ca_file.is_some() && !urls.iter().any(|url| url.starts_with("https://")), "https://");
    }
    let protocol = if is_native {
        HdfsProtocol::Native { url: urls.into_iter().next()?, conf_dir }
    } else {
        HdfsProtocol::Web { urls, delegation_token, ca_file }
    };
    Some(HdfsConfig { protocol, base_path: base_path?, user })
}

/// One address, or several of WebHDFS with `;` between them: the namenodes of one name service.
fn parse_urls(text: &str) -> Result<Vec<String>, String> {
    let urls = text.split(';').map(|part| parse_url(part.trim())).collect::<Result<Vec<_>, _>>()?;
    let mut schemes: Vec<_> = urls.iter().filter_map(|url| url.split("://").next()).collect();
    schemes.dedup();
    match schemes.as_slice() {
        ["hdfs"] if urls.len() > 1 => {
            Err("several namenodes are one name service here: hdfs://name, with hadoop_conf_dir to say which they are"
                .to_owned())
        }
        [_] => Ok(urls),
        _ => Err("expected the same scheme in all addresses".to_owned()),
    }
}

/// One address without anything but host and port.
fn parse_url(text: &str) -> Result<String, String> {
    let url = url::Url::parse(text).map_err(|_| expected(EXAMPLE, text))?;
    if !matches!(url.scheme(), "hdfs" | "http" | "https") || !url.has_host() {
        return Err(expected(EXAMPLE, text));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("an address must not contain a user or a password; the user goes into `user`".to_owned());
    }
    if !matches!(url.path(), "" | "/" | "/webhdfs/v1" | "/webhdfs/v1/")
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return Err(format!("expected host and port alone, found {text:?}; folders go into `base_path`"));
    }
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    Ok(format!("{}://{host}{port}", url.scheme()))
}

/// A folder without slashes at its ends.
fn parse_base_path(text: &str) -> Result<String, String> {
    let path = text.trim_matches('/');
    if path.is_empty() {
        return Err(expected("a folder such as /data/lake", text));
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(format!("expected a folder such as /data/lake, found {text:?} with an empty part, `.` or `..`"));
    }
    if path.contains(':') {
        return Err(format!("HDFS takes no `:` in names, found {text:?}"));
    }
    if object_store::path::Path::parse(path).is_err() {
        return Err(format!(
            "expected a folder such as /data/lake, found {text:?} with a character that stores refuse"
        ));
    }
    Ok(path.to_owned())
}

/// A path that must be there.
fn existing(
    section: &Section<'_>,
    folder: &Path,
    key: &'static str,
    is: fn(&Path) -> bool,
    what: &str,
) -> Option<PathBuf> {
    let text = section.text(key).filter(|text| !text.is_empty())?;
    let place = section.node(key).map_or_else(|| section.place(), |node| &node.place);
    let path = Section::resolve(place, folder, &text);
    if !is(&path) {
        section.fault(key, format!("expected {what}, found nothing such at {}", path.display()));
    }
    Some(path)
}
