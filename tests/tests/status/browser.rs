//! A headless Chromium, one run for each look at a page.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use testkit::note;

/// Time that the page is given, in the browser's own clock.
const PAGE_TIME_MS: u32 = 5000;

pub(crate) struct Browser {
    program: PathBuf,
    /// Where pictures are left for somebody to look at.
    pictures: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Theme {
    Light,
    Dark,
}

impl Browser {
    /// `KVORUM_TEST_CHROMIUM`, or a word about what is not run without it; pictures go to `KVORUM_TEST_PICTURES`.
    pub(crate) fn find() -> Result<Option<Self>> {
        let Some(program) = std::env::var_os("KVORUM_TEST_CHROMIUM") else {
            note("NOT RUN: there is no browser (tests/fetch-chromium)");
            return Ok(None);
        };
        let program = PathBuf::from(program);
        ensure!(program.is_file(), "KVORUM_TEST_CHROMIUM is no file");
        let pictures = std::env::var_os("KVORUM_TEST_PICTURES").map(PathBuf::from);
        Ok(Some(Self { program, pictures }))
    }

    /// Opens the page, and fails unless it has shown what it read, without an error and without being wider than the
    /// window.
    pub(crate) fn shows(&self, url: &str, theme: Theme, width: u32) -> Result<()> {
        let shown = self.page("status", theme, width, url)?;
        for text in [
            ">Live<",
            ">m1<",
            ">leader<",
            ">1 of 1<",
            "/registry/<wbr>pods/",
            "log fsync",
            "✓ this one",
        ] {
            ensure!(shown.contains(text), "no {text:?} at {width} in {shown}");
        }
        ensure!(!shown.contains("class=\"old\""), "{shown}");
        Ok(())
    }

    /// Opens the page, and says what it has become. A picture of it begins with this name.
    pub(crate) fn page(&self, name: &str, theme: Theme, width: u32, url: &str) -> Result<String> {
        if let Some(pictures) = &self.pictures {
            std::fs::create_dir_all(pictures)?;
            let picture = pictures.join(format!("{name}-{theme:?}-{width}.png").to_lowercase());
            let picture = format!("--screenshot={}", picture.display());
            self.run(theme, width, &[picture], url)?;
        }
        self.run(theme, width, &["--dump-dom".to_owned()], url)
    }

    fn run(&self, theme: Theme, width: u32, arguments: &[String], url: &str) -> Result<String> {
        let profile = tempfile::tempdir()?;
        let scheme = match theme {
            Theme::Dark => 0,
            Theme::Light => 1,
        };
        let done = Command::new(&self.program)
            .args(["--headless", "--hide-scrollbars", "--enable-logging=stderr"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("--window-size={width},2200"))
            .arg(format!("--blink-settings=preferredColorScheme={scheme}"))
            .arg(format!("--virtual-time-budget={PAGE_TIME_MS}"))
            .args(arguments)
            .arg(url)
            .output()
            .context("the browser does not start")?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "{said}");
        // What a script fails with, or the page's policy refuses.
        ensure!(!said.contains("CONSOLE"), "{said}");
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }
}
