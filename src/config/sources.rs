//! Where settings come from: flag over environment over file over default.
//!
//! Each source only says texts; what they mean and whether they are allowed is asked of
//! the table. An error names the place where the text stands: the line of the file, the
//! variable, the flag.

use std::env;
use std::fs;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use crate::config::settings::{ConfigError, SETTINGS};
use crate::config::values::Config;

/// Settings from several sources, read from the weakest to the strongest.
#[derive(Debug, Default)]
pub struct Layers {
    config: Config,
}

impl Layers {
    /// Reads a TOML file: the names of the flags with `_` for `-`.
    ///
    /// # Errors
    /// When the file can't be read, is not TOML, names something that is no
    /// setting, or a value is not allowed.
    pub fn file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let shown = path.display();
        let text = fs::read_to_string(path).map_err(|error| {
            ConfigError(format!("--config {shown} can't be read: {error}; it takes a readable TOML file"))
        })?;
        let line_of = |place: usize| text[..place].matches('\n').count() + 1;
        let table = DeTable::parse(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(span.start));
            ConfigError(format!("{shown} line {line}: {}", error.message()))
        })?;
        for (key, value) in table.get_ref() {
            let at = format!("{shown} line {}", line_of(key.span().start));
            let (key, value) = (key.get_ref(), value.get_ref());
            let name = key.replace('_', "-");
            if key.contains('-') || !SETTINGS.iter().any(|setting| setting.name == name) {
                return Err(ConfigError(format!("{at}: {key} is not a setting")));
            }
            let is_list = value.is_array();
            let value = text_of(value)
                .filter(|_| !is_list || name == "listen")
                .ok_or_else(|| ConfigError(format!("{at}: {key} takes text, a number, true or false")))?;
            self.config.set(&name, &value).map_err(|error| {
                ConfigError(format!("{at}: {}", error.0.replacen(&format!("--{name}"), key, 1)))
            })?;
        }
        Ok(())
    }

    /// Reads the environment: `PINPOST_LISTEN` and so on.
    ///
    /// # Errors
    /// When a variable's value is not allowed.
    pub fn environment(&mut self) -> Result<(), ConfigError> {
        for setting in SETTINGS {
            let variable = format!("PINPOST_{}", setting.name.to_ascii_uppercase().replace('-', "_"));
            let Some(value) = env::var_os(&variable) else { continue };
            let flag = format!("--{}", setting.name);
            let result = self.config.set(setting.name, &value.to_string_lossy());
            result.map_err(|error| ConfigError(error.0.replacen(&flag, &variable, 1)))?;
        }
        Ok(())
    }

    /// Sets a flag.
    ///
    /// # Errors
    /// As [`Config::set`].
    pub fn flag(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        self.config.set(name, value)
    }

    /// The settings in force.
    pub fn config(self) -> Config {
        self.config
    }
}

fn text_of(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(|number| number.to_string())
        }
        DeValue::Boolean(switch) => Some(switch.to_string()),
        DeValue::Array(values) => {
            let texts: Option<Vec<String>> = values.iter().map(|value| text_of(value.get_ref())).collect();
            Some(texts?.join(","))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with this text, gone when dropped.
    struct File(std::path::PathBuf);

    impl File {
        fn new(name: &str, text: &str) -> Self {
            let path = env::temp_dir().join(format!("pinpost-{}-{name}.toml", std::process::id()));
            fs::write(&path, text).expect("the temporary folder takes a file");
            File(path)
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    #[test]
    fn what_is_printed_is_read_back() {
        let mut config = Config::default();
        let values = [
            ("listen", "127.0.0.1:1,[::1]:2"),
            ("http", "off"),
            ("node", "007"),
            ("login-timeout", "500ms"),
            ("open", "true"),
        ];
        for (name, value) in values {
            config.set(name, value).expect(value);
        }
        let file = File::new("printed", &config.print());
        let mut layers = Layers::default();
        layers.file(&file.0).expect("our own");
        assert_eq!(layers.config(), config);
    }

    #[test]
    fn a_bad_file_is_told_with_its_line() {
        for (name, text, expected) in [
            (
                "value",
                "# x\nsessions = 0\n",
                "line 2: sessions \"0\" is not allowed: it takes a number from 1",
            ),
            ("name", "listen = \"127.0.0.1:0\"\nsession = 1\n", "line 2: session is not a setting"),
            ("dash", "max-line = 4096\n", "line 1: max-line is not a setting"),
            ("prefix", "login_timeout = \"60s\"\nlog = \"loud\"\n", "line 2: log \"loud\""),
            ("type", "log = 1.5\n", "line 1: log takes text"),
            ("table", "\n[http]\n", "line 2: http takes text"),
            ("twice", "log = \"info\"\n'http' = 1\n", "line 2: http \"1\" is not allowed"),
            ("toml", "sessions = 1\nlisten = \n", "line 2: "),
        ] {
            let file = File::new(name, text);
            let error = Layers::default().file(&file.0).expect_err(text).to_string();
            assert!(error.contains(expected), "{error}");
        }
        let error = Layers::default().file(Path::new("/nowhere/at/all")).expect_err("no file").to_string();
        assert!(error.contains("--config /nowhere/at/all"), "{error}");
    }
}
