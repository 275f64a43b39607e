//! Names of projects that somebody may have meant.
//!
//! Only names written here are offered. An index would find more, among them those that somebody registered because people
//! mistype: to suggest one of these would be worse than to suggest nothing.

use crate::python::normalise;

/// What is imported under another name than it is installed.
const IMPORTED_AS: &[(&str, &str)] = &[
    ("attr", "attrs"),
    ("bio", "biopython"),
    ("bs4", "beautifulsoup4"),
    ("crypto", "pycryptodome"),
    ("cv2", "opencv-python"),
    ("dateutil", "python-dateutil"),
    ("discord", "discord-py"),
    ("docx", "python-docx"),
    ("dotenv", "python-dotenv"),
    ("fitz", "pymupdf"),
    ("git", "gitpython"),
    ("jose", "python-jose"),
    ("jwt", "pyjwt"),
    ("magic", "python-magic"),
    ("mysqldb", "mysqlclient"),
    ("nacl", "pynacl"),
    ("openssl", "pyopenssl"),
    ("pil", "pillow"),
    ("pkg-resources", "setuptools"),
    ("psycopg2", "psycopg2-binary"),
    ("serial", "pyserial"),
    ("skimage", "scikit-image"),
    ("sklearn", "scikit-learn"),
    ("slugify", "python-slugify"),
    ("usb", "pyusb"),
    ("yaml", "pyyaml"),
    ("zmq", "pyzmq"),
];

/// Projects that are asked for often.
const WELL_KNOWN: &str = "
    aiofiles aiohttp alembic annotated-types anthropic anyio apache-airflow argcomplete arrow asgiref astropy asyncpg attrs
    authlib babel bcrypt beautifulsoup4 biopython black bleach blinker bokeh boto3 botocore build cachetools celery certifi cffi
    chardet charset-normalizer click cloudpickle colorama contourpy coverage cryptography cycler cython dask datasets decorator
    deprecated dill distlib distro django djangorestframework dnspython docker docutils duckdb elasticsearch email-validator
    et-xmlfile fastapi filelock flask fonttools frozenlist fsspec gensim geopandas gevent gitpython google-auth graphviz greenlet
    grpcio gunicorn h5py hatchling hdbscan httplib2 httptools httpx huggingface-hub hypothesis idna importlib-metadata iniconfig
    ipykernel ipython ipywidgets isort itsdangerous jax jedi jinja2 jmespath joblib jsonschema jupyter jupyterlab keras
    keyring kiwisolver kubernetes langchain librosa lightgbm llvmlite lxml lz4 mako markdown markdown-it-py markupsafe matplotlib
    more-itertools mpmath msgpack multidict mypy mysqlclient networkx nltk notebook numba numexpr numpy oauthlib openai
    opencv-python openpyxl orjson packaging pandas paramiko pathspec peewee pexpect pillow pip platformdirs plotly pluggy polars
    pre-commit prometheus-client prompt-toolkit protobuf psutil psycopg psycopg2-binary pyarrow pyasn1 pycparser pycryptodome
    pydantic pydantic-core pygments pyinstaller pyjwt pymongo pymupdf pymysql pynacl pyopenssl pyparsing pyserial pytest
    pytest-asyncio pytest-cov pytest-mock pytest-xdist python-dateutil python-docx python-dotenv python-multipart pytz pyyaml
    pyzmq rasterio redis regex requests requests-oauthlib rich rpds-py rsa ruamel-yaml ruff s3fs s3transfer scikit-image
    scikit-learn scipy scrapy seaborn selenium sentence-transformers sentencepiece sentry-sdk setuptools shapely simplejson six
    sniffio sortedcontainers soupsieve spacy sphinx sqlalchemy sqlparse starlette statsmodels structlog sympy tabulate tenacity
    tensorboard tensorflow termcolor threadpoolctl tiktoken tokenizers toml tomli tomlkit torch torchaudio torchvision tornado
    tox tqdm traitlets transformers trio twine typer typing-extensions tzdata tzlocal urllib3 uv uvicorn uvloop virtualenv
    watchdog watchfiles wcwidth websocket-client websockets werkzeug wheel wrapt xarray xgboost xlrd xlsxwriter yarl zipp
    zstandard
";

/// Names like this one, best first; at most three.
pub fn near(name: &str) -> Vec<String> {
    let name = normalise(name);
    if name.len() > 64 {
        return Vec::new();
    }
    let imported = IMPORTED_AS.iter().filter(|(import, _)| *import == name).map(|(_, project)| *project);
    let mut found: Vec<String> = imported.map(str::to_owned).collect();
    // One slip for every four letters, so that short names do not all look alike.
    let most = (name.len() / 4).clamp(1, 3);
    let mut measured: Vec<(usize, &str)> = WELL_KNOWN
        .split_whitespace()
        .map(|known| (distance(&bare(&name), &bare(known)), known))
        .filter(|(distance, known)| *distance <= most && *known != name)
        .collect();
    measured.sort();
    found.extend(
        measured
            .into_iter()
            .map(|(_, known)| known.to_owned())
            .filter(|known| !found.contains(known))
            .collect::<Vec<_>>(),
    );
    found.truncate(3);
    found
}

/// Without what people add or leave out: hyphens, and `python` or `py` at either end.
fn bare(name: &str) -> Vec<u8> {
    let joined = name.replace('-', "");
    let cut = ["python", "py"].iter().find_map(|word| joined.strip_prefix(word).or(joined.strip_suffix(word)));
    cut.filter(|rest| rest.len() > 2).unwrap_or(&joined).as_bytes().to_vec()
}

/// How many letters must be added, left out, changed or swapped with their neighbour (optimal string alignment).
fn distance(left: &[u8], right: &[u8]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (row, letter) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, other) in right.iter().enumerate() {
            let mut best =
                (last[column] + usize::from(letter != other)).min(last[column + 1] + 1).min(current[column] + 1);
            if row > 0 && column > 0 && *letter == right[column - 1] && left[row - 1] == *other {
                best = best.min(before[column - 1] + 1);
            }
            current.push(best);
        }
        before = std::mem::replace(&mut last, current);
    }
    last[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_and_import_names_are_understood() {
        assert_eq!(near("nunpy"), ["numpy"]);
        assert_eq!(near("Reqeusts")[0], "requests");
        assert_eq!(near("sklearn")[0], "scikit-learn");
        assert_eq!(near("beautifulsoup"), ["beautifulsoup4"]);
        assert_eq!(near("typing_extension"), ["typing-extensions"]);
        assert_eq!(near("PIL")[0], "pillow");
        assert!(near("something-of-my-own").is_empty());
        assert!(near(&"x".repeat(1000)).is_empty());
    }
}
