//! The languages that there is an SDK for: which files each has, and how it is told from the others.

use std::path::Path;

use clap::ValueEnum;

use super::embedded::{self, File};

/// A language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Language {
    /// Rust, with cargo.
    Rust,
    /// Python, with componentize-py.
    Python,
    /// JavaScript, with componentize-js.
    Javascript,
    /// C, with clang.
    C,
    /// Go, with its own compiler.
    Go,
}

impl Language {
    /// All of them.
    pub(super) const ALL: [Self; 5] = [Self::Rust, Self::Python, Self::Javascript, Self::C, Self::Go];

    /// The name for `--language`.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Python => "python",
            Self::Javascript => "javascript",
            Self::C => "c",
            Self::Go => "go",
        }
    }

    /// The files of its SDK and its template.
    pub(super) fn files(self) -> &'static [File] {
        match self {
            Self::Rust => embedded::RUST,
            Self::Python => embedded::PYTHON,
            Self::Javascript => embedded::JAVASCRIPT,
            Self::C => embedded::C,
            Self::Go => embedded::GO,
        }
    }

    /// The file by which a folder is known to be of this language.
    pub(super) fn mark(self) -> &'static str {
        match self {
            Self::Rust => "Cargo.toml",
            Self::Python => "plugin.py",
            Self::Javascript => "package.json",
            Self::C => "plugin.c",
            Self::Go => "go.mod",
        }
    }

    /// The language of a plugin's folder.
    pub(super) fn of(folder: &Path) -> Option<Self> {
        Self::ALL.into_iter().find(|language| folder.join(language.mark()).is_file())
    }
}
