//! Listing folders, batch by batch, as the namenode gives them.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{Error, Extensions, ListResult, ObjectMeta, Result, path::Path};
use reqwest::Method;
use serde_json::Value;

use super::{client::WebClient, meta};
use crate::store::hadoop::{self, Complaint, in_time};

/// Where a listing is.
struct Place {
    /// Asks.
    client: Arc<WebClient>,
    /// Folders that are still to be listed.
    folders: Vec<Path>,
    /// In the last of them, the name after which to go on.
    after: Option<String>,
}

/// One batch of a folder.
#[derive(Default)]
struct Batch {
    /// Its files.
    files: Vec<ObjectMeta>,
    /// Its folders.
    folders: Vec<Path>,
    /// The name after which the folder goes on; `None` at its end.
    after: Option<String>,
}

/// All files below a folder; none where it does not exist.
pub(super) fn recursive(client: Arc<WebClient>, folder: Path) -> BoxStream<'static, Result<ObjectMeta>> {
    let start = Place { client, folders: vec![folder], after: None };
    let batches = futures::stream::try_unfold(start, |mut place| async move {
        let Some(folder) = place.folders.pop() else { return Ok(None) };
        let batch = batch(&place.client, &folder, place.after.take().as_deref()).await?;
        place.folders.extend(batch.folders);
        if batch.after.is_some() {
            place.folders.push(folder);
            place.after = batch.after;
        }
        Ok::<_, Error>(Some((futures::stream::iter(batch.files.into_iter().map(Ok)), place)))
    });
    batches.try_flatten().boxed()
}

/// The files and folders in a folder.
pub(super) async fn one_level(client: &WebClient, folder: Path) -> Result<ListResult> {
    let mut result = ListResult { common_prefixes: Vec::new(), objects: Vec::new(), extensions: Extensions::default() };
    let mut after: Option<String> = None;
    loop {
        let batch = batch(client, &folder, after.as_deref()).await?;
        result.common_prefixes.extend(batch.folders);
        result.objects.extend(batch.files);
        after = batch.after;
        if after.is_none() {
            return Ok(result);
        }
    }
}

/// The next batch of a folder; nothing where it is gone.
async fn batch(client: &WebClient, folder: &Path, after: Option<&str>) -> Result<Batch> {
    // The documented name, which HttpFS knows alone; and the one that a namenode of Hadoop 3.5 knows alone: those before it
    // looked at no letter's case.
    let parameters = after.map(|after| [("startAfter", after), ("startafter", after)]);
    let request = client.ask(Method::GET, "LISTSTATUS_BATCH", folder, parameters.as_slice().as_flattened());
    match in_time(folder, request).await {
        Ok(answer) => {
            let batch = parse(folder, &answer)?;
            if after.is_some() && batch.after.as_deref() == after {
                let words = "the listing of a folder begins anew and would never end";
                return Err(hadoop::error(Complaint::Protocol, folder, words));
            }
            Ok(batch)
        }
        Err(Error::NotFound { .. }) => Ok(Batch::default()),
        Err(error) => Err(error),
    }
}

/// A batch as the namenode writes it.
fn parse(folder: &Path, answer: &Value) -> Result<Batch> {
    let wrong = || hadoop::error(Complaint::Protocol, folder, "a listing in a shape that is not WebHDFS's");
    let listing = answer.get("DirectoryListing").ok_or_else(wrong)?;
    let entries = listing.pointer("/partialListing/FileStatuses/FileStatus").and_then(Value::as_array);
    let mut found = Batch::default();
    let mut last = None;
    for entry in entries.ok_or_else(wrong)? {
        // A file that is listed itself has no name here.
        let name = entry.get("pathSuffix").and_then(Value::as_str).unwrap_or_default();
        if name.is_empty() {
            continue;
        }
        last = Some(name);
        let text = if folder.as_ref().is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
        // Names that `object_store` does not know are not ours.
        let Ok(path) = Path::parse(text) else { continue };
        match entry.get("type").and_then(Value::as_str) {
            Some("DIRECTORY") => found.folders.push(path),
            Some("FILE") => found.files.push(meta(path, entry)?),
            _ => {}
        }
    }
    let is_more = listing.get("remainingEntries").and_then(Value::as_u64).unwrap_or_default() > 0;
    found.after = last.filter(|_| is_more).map(str::to_owned);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_batch_is_understood() {
        let entry =
            |name: &str, kind: &str| json!({"pathSuffix": name, "type": kind, "length": 3, "modificationTime": 1_000});
        let answer = |remaining: u64| {
            let entries = json!([entry("a%2Fb", "FILE"), entry("d", "DIRECTORY"), entry("l", "SYMLINK")]);
            json!({"DirectoryListing": {"partialListing": {"FileStatuses": {"FileStatus": entries}}, "remainingEntries": remaining}})
        };
        let batch = parse(&Path::from("lake"), &answer(2)).unwrap();
        assert_eq!((batch.files[0].location.as_ref(), batch.files[0].size), ("lake/a%2Fb", 3));
        assert_eq!((batch.folders[0].as_ref(), batch.after.as_deref()), ("lake/d", Some("l")));
        assert_eq!(parse(&Path::default(), &answer(0)).unwrap().after, None);
        assert!(parse(&Path::default(), &json!({"x": 1})).is_err());
    }
}
