"""Word lists that titles and names are put together from; all invented."""

from __future__ import annotations

THEMES: dict[str, tuple[str, ...]] = {
    "heist": ("vault", "getaway", "forger", "safecracker", "double cross", "last job", "diamond", "blueprint"),
    "space": ("starship", "orbit", "first contact", "airlock", "colony", "comet", "warp", "lost signal"),
    "robots": ("android", "circuit", "uprising", "prototype", "machine mind", "automaton", "firmware", "clone"),
    "haunting": ("ghost", "séance", "old manor", "possession", "attic", "whisper", "curse", "apparition"),
    "slasher": ("mask", "cabin", "final girl", "blade", "prom night", "scream", "stalker", "basement"),
    "courtroom": ("verdict", "jury", "witness", "appeal", "objection", "public defender", "cross examination", "alibi"),
    "noir": ("detective", "shadow", "femme fatale", "fedora", "rain", "wiretap", "backroom", "cigarette"),
    "romance": (
        "first kiss",
        "love letter",
        "wedding",
        "second chance",
        "summer love",
        "heartbreak",
        "proposal",
        "waltz",
    ),
    "family": ("reunion", "siblings", "grandmother", "inheritance", "kitchen", "homecoming", "stepfather", "holiday"),
    "animals": ("stray dog", "wild horse", "migration", "wolf", "circus bear", "talking cat", "sanctuary", "orchard"),
    "war": ("trench", "front line", "armistice", "deserter", "code breaker", "convoy", "medic", "occupation"),
    "western": ("frontier", "outlaw", "sheriff", "gold rush", "cattle drive", "showdown", "saloon", "prairie"),
    "samurai": ("duel", "ronin", "castle siege", "katana", "honour", "shogun", "tea master", "vendetta"),
    "music": ("encore", "garage band", "vinyl", "prodigy", "jazz club", "tour bus", "ballad", "audition"),
    "sport": ("underdog", "championship", "coach", "penalty", "comeback", "marathon", "ring", "locker room"),
    "cooking": ("chef", "recipe", "bakery", "food truck", "harvest", "spice", "banquet", "pastry"),
    "sea": ("lighthouse", "submarine", "mutiny", "harbour", "shipwreck", "tide", "whaler", "lagoon"),
    "mountain": ("summit", "avalanche", "expedition", "glacier", "rope team", "base camp", "monastery", "ridge"),
    "politics": ("campaign", "scandal", "senator", "coup", "whistleblower", "embassy", "ballot", "speech"),
    "spies": ("double agent", "dead drop", "cipher", "mole", "safe house", "border crossing", "passport", "defector"),
    "magic": ("wizard", "dragon", "spell", "prophecy", "enchanted forest", "sword", "oracle", "potion"),
    "time travel": ("paradox", "time loop", "yesterday", "hourglass", "future self", "clockwork", "rewind", "anomaly"),
    "school": ("exchange student", "exam", "boarding school", "prank", "teacher", "crush", "graduation", "detention"),
    "office": ("promotion", "deadline", "startup", "boss", "elevator", "coffee break", "merger", "cubicle"),
}
"""Hidden themes and the tags that lean towards them."""

THEME_GENRES: dict[str, tuple[str, ...]] = {
    "heist": ("Crime", "Thriller"),
    "space": ("Science Fiction", "Adventure"),
    "robots": ("Science Fiction", "Action"),
    "haunting": ("Horror", "Mystery"),
    "slasher": ("Horror", "Thriller"),
    "courtroom": ("Drama", "Crime"),
    "noir": ("Crime", "Mystery"),
    "romance": ("Romance", "Comedy"),
    "family": ("Drama", "Comedy"),
    "animals": ("Animation", "Adventure"),
    "war": ("Action", "Drama"),
    "western": ("Action", "Adventure"),
    "samurai": ("Action", "Drama"),
    "music": ("Drama", "Romance"),
    "sport": ("Drama", "Action"),
    "cooking": ("Comedy", "Romance"),
    "sea": ("Adventure", "Mystery"),
    "mountain": ("Adventure", "Thriller"),
    "politics": ("Thriller", "Drama"),
    "spies": ("Thriller", "Action"),
    "magic": ("Fantasy", "Animation"),
    "time travel": ("Science Fiction", "Fantasy"),
    "school": ("Comedy", "Drama"),
    "office": ("Comedy", "Crime"),
}
"""Genres that the films of a theme lean towards."""

GENERIC_TAGS = (
    "atmospheric", "slow", "funny", "beautiful", "overlooked", "predictable", "great soundtrack", "long",
    "based on a true story", "black and white", "cult", "debut", "dialogue", "dreamlike", "ensemble cast",
    "twist ending", "feel good", "great acting", "melancholy", "must see", "stylish", "violent",
    "visually stunning", "watched on a plane",
)  # fmt: skip
"""Tags that say nothing about the theme."""

GENRES = (
    "Action", "Adventure", "Animation", "Comedy", "Crime", "Drama", "Fantasy", "Horror", "Mystery", "Romance",
    "Science Fiction", "Thriller",
)  # fmt: skip

ADJECTIVES = (
    "Silent", "Golden", "Broken", "Hidden", "Last", "Crimson", "Distant", "Endless", "Forgotten", "Gentle",
    "Hollow", "Iron", "Lonely", "Midnight", "Northern", "Paper", "Quiet", "Restless", "Scarlet", "Secret", "Stolen",
    "Strange", "Sudden", "Tender", "Unspoken", "Velvet", "Wandering", "Wild", "Winter", "Burning", "Careless",
    "Dancing", "Electric", "Fading", "Glass", "Honest", "Invisible", "Jealous", "Little", "Marble", "Nameless",
    "Open", "Pale", "Rising", "Savage", "Thousand", "Uncertain", "Vanishing", "Waking", "Yellow",
)  # fmt: skip

NOUNS = (
    "River", "Garden", "Letter", "Window", "Mirror", "Island", "Bridge", "Road", "Night", "Morning", "Stranger",
    "Promise", "Echo", "Feather", "Lantern", "Ocean", "Orchid", "Painter", "Parade", "Pilot", "Queen", "Rain",
    "Saint", "Season", "Sister", "Smoke", "Snow", "Song", "Station", "Storm", "Street", "Sun", "Teacher", "Thief",
    "Tower", "Train", "Traveller", "Truth", "Valley", "Village", "Voice", "Wall", "Water", "Wedding", "Widow",
    "Wind", "Witness", "Wolf", "Year", "Heart", "House", "Hour", "Hunter", "Journey", "Judge", "Kingdom", "Land",
    "Machine", "Moon", "Dream",
)  # fmt: skip

PLACES = (
    "Alder Bay", "Basilton", "Corvane", "Dunmere", "Eastfall", "Fenwick", "Graymoor", "Halden", "Istria Cove",
    "Juniper", "Kestrel Point", "Lorne", "Marrow Hill", "Nordhaven", "Oslow", "Port Amber", "Quarry Lane",
    "Rosewater", "Saltmarsh", "Tarn", "Umber", "Vesper", "Westering", "Yarrow",
)  # fmt: skip

FIRST_NAMES = (
    "Ada", "Aldo", "Amara", "Anouk", "Basil", "Bela", "Bruno", "Camille", "Cato", "Clara", "Dario", "Delia", "Edda",
    "Elio", "Emeka", "Esme", "Farid", "Flora", "Gala", "Goran", "Greta", "Hana", "Hugo", "Ida", "Imre", "Ines",
    "Ivo", "Jana", "Jonas", "Juno", "Kaito", "Kira", "Lars", "Leda", "Lina", "Luca", "Mara", "Milo", "Mina",
    "Nadia", "Nico", "Noor", "Odile", "Olaf", "Oona", "Pavel", "Petra", "Quentin", "Rafi", "Renata", "Rosa", "Sami",
    "Selma", "Silas", "Sofia", "Tariq", "Tess", "Tilda", "Umar", "Vera", "Viktor", "Wanda", "Yara", "Zeno",
)  # fmt: skip

LAST_NAMES = (
    "Abara", "Adler", "Almgren", "Amsel", "Bakari", "Bellweather", "Berg", "Brandt", "Calloway", "Castellan",
    "Corbeau", "Dalmas", "Darrow", "Delacourt", "Dunaway", "Egede", "Ekström", "Fairbairn", "Falk", "Ferro",
    "Fontaine", "Galanis", "Garrick", "Grau", "Halloran", "Haruki", "Hollis", "Ibarra", "Ilves", "Jansen", "Jarosz",
    "Kallio", "Kessler", "Kovar", "Lafitte", "Larkin", "Lindqvist", "Lovelace", "Maduro", "Marchetti", "Mbeki",
    "Mercer", "Moreau", "Nakagawa", "Novak", "Okafor", "Olander", "Orsini", "Pascoe", "Pellegrin", "Petrov",
    "Quill", "Radnor", "Rask", "Rinaldi", "Sandoval", "Sato", "Sørensen", "Stroud", "Tanaka", "Thorne", "Tolland",
    "Ueda", "Valdez", "Varga", "Vance", "Weiss", "Whitlock", "Winther", "Yilmaz", "Zeller", "Zola",
)  # fmt: skip

STUDIO_WORDS = ("Pictures", "Films", "Studios", "Productions", "Cinema", "Entertainment")
LANGUAGES = ("English", "French", "Japanese", "Spanish", "German", "Korean", "Hindi", "Swedish")
COUNTRIES = ("DE", "FR", "GB", "JP", "US", "BR", "IN", "SE", "KR", "ES")
ROMAN = ("II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X")
