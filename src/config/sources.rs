//! Where settings come from: flag over environment over file over default.
//!
//! Each source only says texts; what they mean and whether they are allowed is asked of
//! the table. An error names the place where the text stands: the line of the file, the
//! variable, the flag.

use std::env;
use std::fs;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use crate::config::settings::{ConfigError, SETTINGS, Setting};
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
            let lines: Vec<&str> = text.lines().take(line).collect();
            let why = meant(&lines).unwrap_or_else(|| error.message().to_owned());
            ConfigError(format!("{shown} line {line}: {why}"))
        })?;
        for (key, value) in table.get_ref() {
            let at = format!("{shown} line {}", line_of(key.span().start));
            let (key, value) = (key.get_ref(), value.get_ref());
            let name = key.replace('_', "-");
            let setting = match Setting::find(&name) {
                Some(setting) if !key.contains('-') => setting,
                Some(_) => {
                    let right = key.replace('-', "_");
                    return Err(ConfigError(format!("{at}: {key} is not a setting: it takes {right}")));
                }
                None if value.is_table() => {
                    let why = "is not a setting: they stand by themselves, in no table";
                    return Err(ConfigError(format!("{at}: {key} {why}")));
                }
                None => return Err(ConfigError(format!("{at}: {key} is not a setting"))),
            };
            let is_list = value.is_array();
            let value = text_of(value)
                .filter(|_| !is_list || name == "listen")
                .ok_or_else(|| ConfigError(format!("{at}: {}", written(setting, key, ""))))?;
            self.config.set(&name, &value).map_err(|error| {
                ConfigError(format!("{at}: {}", error.0.replacen(&format!("--{name}"), key, 1)))
            })?;
        }
        Ok(())
    }

    /// Reads the environment: `PINPOST_LISTEN` and so on. An empty variable is as if unset.
    ///
    /// # Errors
    /// When a variable's value is not allowed.
    pub fn environment(&mut self) -> Result<(), ConfigError> {
        for setting in SETTINGS {
            let variable = format!("PINPOST_{}", setting.name.to_ascii_uppercase().replace('-', "_"));
            let Some(value) = env::var_os(&variable).filter(|value| !value.is_empty()) else { continue };
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

/// What to write instead of the last of these lines, which is not TOML, if it means a setting.
fn meant(lines: &[&str]) -> Option<String> {
    let (last, before) = lines.split_last()?;
    let is_in_list = last.trim_start().starts_with(|c: char| c.is_ascii_digit() || c == '[');
    let line = match is_in_list {
        true => before.iter().rev().find(|line| line.contains('=')).filter(|line| line.ends_with('['))?,
        // Another line may be at fault.
        false if DeTable::parse(last).is_ok() => return None,
        false => last,
    };
    let (key, value) = line.split_once(['=', ':'])?;
    let key = key.trim();
    let setting = Setting::find(&key.replace('_', "-"))?;
    let value =
        value.split(" #").next().expect("one at least").trim().trim_matches(['"', '\'', '[', ']', ',']);
    Some(written(setting, key, value))
}

/// How a setting is written in a file, with this value if it is allowed, or else its default.
fn written(setting: &Setting, key: &str, value: &str) -> String {
    let is_allowed = Config::default().set(setting.name, value).is_ok();
    let value = match (is_allowed, setting.default) {
        // A URL may have a password.
        (true, _) if setting.form != "URL" => value,
        (_, "") => "pi",
        (_, default) => default,
    };
    format!("{key} takes {}; in this file it is written {}", setting.allowed, setting.line(value))
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
            ("dash", "max-line = 4096\n", "line 1: max-line is not a setting: it takes max_line"),
            ("prefix", "login_timeout = \"60s\"\nlog = \"loud\"\n", "line 2: log \"loud\""),
            ("type", "log = 1.5\n", "line 1: log takes off, error"),
            ("date", "node = 2024-01-01\n", "it is written node = \"pi\""),
            ("table", "\n[http]\n", "line 2: http takes an IP address"),
            ("other-table", "\n[serve]\nsessions = 8\n", "line 2: serve is not a setting: they stand"),
            ("bare", "listen = 127.0.0.1:7799 # x\n", "line 1: listen takes an IP address"),
            ("bare-too", "listen = 127.0.0.1:7799 # x\n", "it is written listen = [\"127.0.0.1:7799\"]"),
            ("bare-time", "# x\nmailbox_ttl = 12h\n", "line 2: mailbox_ttl takes a time from 1s"),
            ("bare-time-too", "# x\nmailbox_ttl = 12h\n", "it is written mailbox_ttl = \"12h\""),
            ("bare-word", "log = debug\n", "it is written log = \"debug\""),
            (
                "yes",
                "open = yes\n",
                "line 1: open takes true or false; in this file it is written open = false",
            ),
            ("bare-dash", "max-line = x\n", "it is written max_line = 4096"),
            ("bare-url", "redis = redis://:s3cret@h\n", "it is written redis = \"off\""),
            ("url", "redis = \"redis://:s3/cret@h\"\n", "redis is not allowed: it takes "),
            ("twice", "log = \"info\"\n'http' = 1\n", "line 2: http \"1\" is not allowed"),
            ("toml", "sessions = 1\nlisten = \n", "line 2: "),
            (
                "yaml",
                "sessions: 8\n",
                "line 1: sessions takes a number from 1 to 1000; in this file it is written",
            ),
            ("bare-list", "listen = [\n  127.0.0.1:1,\n]\n", "line 2: listen takes an IP address"),
            // Not the fault of the line where it shows.
            ("open-list", "listen = [\"127.0.0.1:1\"\nsessions = 8\n", "line 2: missing comma"),
        ] {
            let file = File::new(name, text);
            let error = Layers::default().file(&file.0).expect_err(text).to_string();
            assert!(error.contains(expected) && !error.contains("cret"), "{error}");
        }
        let error = Layers::default().file(Path::new("/nowhere/at/all")).expect_err("no file").to_string();
        assert!(error.contains("--config /nowhere/at/all"), "{error}");
    }
}
