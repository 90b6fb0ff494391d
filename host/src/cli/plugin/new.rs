//! `fs-data-sink plugin new`: a folder with a plugin that works, a test of it, and the SDK.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::Args;

use super::{
    DONE, Ended, answer,
    embedded::{COMMON, File, WIT},
    language::Language,
};

/// Letters of a name: it becomes that of a file and of a package.
const NAME_LETTERS_MAX: usize = 64;

/// What `plugin new` takes.
#[derive(Debug, Args)]
pub(in crate::cli) struct NewArguments {
    /// What it is written in.
    #[arg(short, long, value_enum)]
    language: Language,
    /// The folder to make; its last part is the plugin's name.
    #[arg(value_name = "NAME")]
    folder: PathBuf,
}

/// Does it.
pub(super) fn run(arguments: &NewArguments) -> Result<u8, Ended> {
    let NewArguments { language, folder } = arguments;
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let names = Names::new(&name).map_err(Ended::usage)?;
    let shown = folder.display();
    match fs::read_dir(folder) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(Ended::usage(format!("{shown} is there and not empty: choose another name")));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Ended::usage(format!("{shown} cannot be used: {error}"))),
    }
    for (path, text) in files(*language, &names) {
        write(&folder.join(&path), &text)
            .map_err(|error| Ended::usage(format!("{} cannot be written: {error}", folder.join(&path).display())))?;
    }
    answer(&format!(
        "{shown} has a plugin in {} that works, with a test. Next:\n\n  cd {shown}\n  fs-data-sink plugin test .\n\nREADME.md says \
         the rest.",
        language.as_str()
    ));
    Ok(DONE)
}

/// A file with the folders above it.
fn write(path: &Path, text: &str) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    fs::write(path, text)
}

/// The forms of a plugin's name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// `big-amounts`.
    name: String,
    /// `big_amounts`, as files and modules are called.
    pub(super) file: String,
    /// `BigAmounts`.
    type_name: String,
}

impl Names {
    /// The forms of a name, or why it is none.
    pub(super) fn new(name: &str) -> Result<Self, String> {
        let is_letter =
            |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-' || letter == '_';
        let begins_well = name.starts_with(|first: char| first.is_ascii_lowercase());
        if name.len() > NAME_LETTERS_MAX || !begins_well || !name.chars().all(is_letter) {
            return Err(format!(
                "{name:?} is no name for a plugin: expected up to {NAME_LETTERS_MAX} of a-z, 0-9, - and _, the first a letter"
            ));
        }
        let word = |word: &str| {
            let (first, rest) = word.split_at_checked(1).unwrap_or((word, ""));
            first.to_ascii_uppercase() + rest
        };
        let type_name: String = name.split(['-', '_']).map(word).collect();
        // A name such as `self` or `type` would be a keyword somewhere; a plugin's type is not.
        Ok(Self { name: name.to_owned(), file: name.replace('-', "_"), type_name: format!("{type_name}Plugin") })
    }

    /// A template's text with the names in it.
    fn fill(&self, text: &str) -> String {
        let Self { name, file, type_name } = self;
        text.replace("{{name}}", name).replace("{{file}}", file).replace("{{type}}", type_name)
    }
}

/// Every file of a new plugin: its path in the folder, and its text.
pub(super) fn files(language: Language, names: &Names) -> Vec<(String, String)> {
    let own = format!("sdk/{}/template/", language.as_str());
    let (template, sdk): (Vec<&File>, Vec<&File>) =
        language.files().iter().partition(|(path, _)| path.starts_with(&own));
    let about = template.iter().find(|(path, _)| path.ends_with("/about.md")).map_or("", |(_, text)| text);
    let as_it_is = WIT.iter().chain(sdk).map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
    let filled = COMMON.iter().chain(template).filter(|(path, _)| !path.ends_with("/about.md")).map(|(path, text)| {
        let path = path.strip_prefix(own.as_str()).or_else(|| path.strip_prefix("sdk/template/")).unwrap_or(path);
        let path = match path {
            "gitignore" => ".gitignore".to_owned(),
            // Beside the SDK, and not above it: the plugin's own manifest is above.
            "sdk.toml" => "sdk/Cargo.toml".to_owned(),
            path => names.fill(path),
        };
        (path, names.fill(&text.replace("{{about}}\n", about)))
    });
    as_it_is.chain(filled).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_forms_and_odd_ones_are_refused() {
        let names = Names::new("big-amounts_2").unwrap();
        assert_eq!((names.file.as_str(), names.type_name.as_str()), ("big_amounts_2", "BigAmounts2Plugin"));
        for odd in ["", "Big", "2x", "-x", "a b", "a/b", "a.b", "ä", "..", &"a".repeat(65)] {
            assert!(Names::new(odd).unwrap_err().contains("is no name for a plugin"), "{odd}");
        }
    }

    #[test]
    fn nothing_of_a_template_is_left_to_fill_in() {
        for language in Language::ALL {
            let files = files(language, &Names::new("some-plugin").unwrap());
            for wanted in
                ["README.md", ".gitignore", "pipeline.yaml", "test/rows.ndjson", "wit/plugin.wit", language.mark()]
            {
                assert_eq!(files.iter().filter(|(path, _)| path == wanted).count(), 1, "{wanted}");
            }
            for (path, text) in &files {
                let is_ours = !path.starts_with("sdk/") && !path.starts_with("wit/");
                assert!(!path.contains("template"), "{path}");
                assert!(!is_ours || !text.contains("{{"), "{path}");
            }
        }
    }
}
