"""Phrases in six languages that the generator fills.

Sentences with `{p}` take a placeholder; a noun pair is (the user's, the answer's). The last entry of a list
longer than two is never used for training: held-out prompts are made of those.
"""

from __future__ import annotations

NOUNS: dict[str, dict[str, tuple[str, str]]] = {
    "en": {
        "EMAIL_ADDRESS": ("my e-mail address", "your e-mail address"),
        "PHONE_NUMBER": ("my phone number", "your phone number"),
        "CREDIT_CARD": ("my card number", "your card number"),
        "IBAN_CODE": ("my IBAN", "your IBAN"),
        "IP_ADDRESS": ("my IP address", "your IP address"),
        "URL": ("my website", "your website"),
        "US_SSN": ("my social security number", "your social security number"),
        "PERSON": ("my name", "your name"),
        "LOCATION": ("my city", "your city"),
        "ORGANIZATION": ("my employer", "your employer"),
        "DATE_TIME": ("my appointment", "your appointment"),
        "CRYPTO": ("my wallet address", "your wallet address"),
    },
    "de": {
        "EMAIL_ADDRESS": ("meine E-Mail-Adresse", "Ihre E-Mail-Adresse"),
        "PHONE_NUMBER": ("meine Telefonnummer", "Ihre Telefonnummer"),
        "CREDIT_CARD": ("meine Kartennummer", "Ihre Kartennummer"),
        "IBAN_CODE": ("meine IBAN", "Ihre IBAN"),
        "IP_ADDRESS": ("meine IP-Adresse", "Ihre IP-Adresse"),
        "URL": ("meine Webseite", "Ihre Webseite"),
        "US_SSN": ("meine Sozialversicherungsnummer", "Ihre Sozialversicherungsnummer"),
        "PERSON": ("mein Name", "Ihr Name"),
        "LOCATION": ("meine Stadt", "Ihre Stadt"),
        "ORGANIZATION": ("mein Arbeitgeber", "Ihr Arbeitgeber"),
        "DATE_TIME": ("mein Termin", "Ihr Termin"),
        "CRYPTO": ("meine Wallet-Adresse", "Ihre Wallet-Adresse"),
    },
    "fr": {
        "EMAIL_ADDRESS": ("mon adresse e-mail", "votre adresse e-mail"),
        "PHONE_NUMBER": ("mon numéro de téléphone", "votre numéro de téléphone"),
        "CREDIT_CARD": ("mon numéro de carte", "votre numéro de carte"),
        "IBAN_CODE": ("mon IBAN", "votre IBAN"),
        "IP_ADDRESS": ("mon adresse IP", "votre adresse IP"),
        "URL": ("mon site web", "votre site web"),
        "US_SSN": ("mon numéro de sécurité sociale", "votre numéro de sécurité sociale"),
        "PERSON": ("mon nom", "votre nom"),
        "LOCATION": ("ma ville", "votre ville"),
        "ORGANIZATION": ("mon employeur", "votre employeur"),
        "DATE_TIME": ("mon rendez-vous", "votre rendez-vous"),
        "CRYPTO": ("mon adresse de portefeuille", "votre adresse de portefeuille"),
    },
    "es": {
        "EMAIL_ADDRESS": ("mi correo electrónico", "su correo electrónico"),
        "PHONE_NUMBER": ("mi número de teléfono", "su número de teléfono"),
        "CREDIT_CARD": ("mi número de tarjeta", "su número de tarjeta"),
        "IBAN_CODE": ("mi IBAN", "su IBAN"),
        "IP_ADDRESS": ("mi dirección IP", "su dirección IP"),
        "URL": ("mi página web", "su página web"),
        "US_SSN": ("mi número de seguridad social", "su número de seguridad social"),
        "PERSON": ("mi nombre", "su nombre"),
        "LOCATION": ("mi ciudad", "su ciudad"),
        "ORGANIZATION": ("mi empresa", "su empresa"),
        "DATE_TIME": ("mi cita", "su cita"),
        "CRYPTO": ("mi dirección de monedero", "su dirección de monedero"),
    },
    "it": {
        "EMAIL_ADDRESS": ("il mio indirizzo e-mail", "il suo indirizzo e-mail"),
        "PHONE_NUMBER": ("il mio numero di telefono", "il suo numero di telefono"),
        "CREDIT_CARD": ("il mio numero di carta", "il suo numero di carta"),
        "IBAN_CODE": ("il mio IBAN", "il suo IBAN"),
        "IP_ADDRESS": ("il mio indirizzo IP", "il suo indirizzo IP"),
        "URL": ("il mio sito web", "il suo sito web"),
        "US_SSN": ("il mio codice di previdenza sociale", "il suo codice di previdenza sociale"),
        "PERSON": ("il mio nome", "il suo nome"),
        "LOCATION": ("la mia città", "la sua città"),
        "ORGANIZATION": ("la mia azienda", "la sua azienda"),
        "DATE_TIME": ("il mio appuntamento", "il suo appuntamento"),
        "CRYPTO": ("il mio indirizzo di portafoglio", "il suo indirizzo di portafoglio"),
    },
    "pt": {
        "EMAIL_ADDRESS": ("meu e-mail", "seu e-mail"),
        "PHONE_NUMBER": ("meu número de telefone", "seu número de telefone"),
        "CREDIT_CARD": ("meu número de cartão", "seu número de cartão"),
        "IBAN_CODE": ("meu IBAN", "seu IBAN"),
        "IP_ADDRESS": ("meu endereço IP", "seu endereço IP"),
        "URL": ("meu site", "seu site"),
        "US_SSN": ("meu número de segurança social", "seu número de segurança social"),
        "PERSON": ("meu nome", "seu nome"),
        "LOCATION": ("minha cidade", "sua cidade"),
        "ORGANIZATION": ("minha empresa", "sua empresa"),
        "DATE_TIME": ("minha consulta", "sua consulta"),
        "CRYPTO": ("meu endereço de carteira", "seu endereço de carteira"),
    },
}

# (is, and) joining words.
JOIN: dict[str, tuple[str, str]] = {
    "en": ("is", "and"),
    "de": ("ist", "und"),
    "fr": ("est", "et"),
    "es": ("es", "y"),
    "it": ("è", "e"),
    "pt": ("é", "e"),
}

ASK: dict[str, list[str]] = {
    "en": [
        "please confirm.",
        "Please confirm that you have it.",
        "Can you confirm?",
        "Did you get that?",
        "Please note it.",
        "Please write it down.",
        "Is that noted?",
        "Could you repeat that back to me?",
    ],
    "de": [
        "Bitte bestätigen Sie.",
        "Können Sie das bestätigen?",
        "Bitte notieren.",
        "Haben Sie das notiert?",
        "Bitte wiederholen Sie das.",
    ],
    "fr": [
        "Merci de confirmer.",
        "Pouvez-vous confirmer ?",
        "Veuillez noter.",
        "C'est bien noté ?",
        "Pouvez-vous le répéter ?",
    ],
    "es": [
        "Confirme, por favor.",
        "¿Puede confirmarlo?",
        "Por favor, anótelo.",
        "¿Lo ha anotado?",
        "¿Puede repetirlo?",
    ],
    "it": [
        "Confermi, per favore.",
        "Può confermare?",
        "Per favore, prenda nota.",
        "Ha preso nota?",
        "Può ripeterlo?",
    ],
    "pt": ["Confirme, por favor.", "Pode confirmar?", "Por favor, anote.", "Anotou?", "Pode repetir?"],
}

THANKS: dict[str, list[str]] = {
    "en": ["Thank you.", "Thanks, noted.", "Confirmed."],
    "de": ["Vielen Dank.", "Danke, notiert.", "Bestätigt."],
    "fr": ["Merci.", "Merci, c'est noté.", "Confirmé."],
    "es": ["Gracias.", "Gracias, anotado.", "Confirmado."],
    "it": ["Grazie.", "Grazie, annotato.", "Confermato."],
    "pt": ["Obrigado.", "Obrigado, anotado.", "Confirmado."],
}

# Natural sentences of a type with the sentence that answers them.
SENTENCES: dict[str, dict[str, list[tuple[str, str]]]] = {
    "en": {
        "EMAIL_ADDRESS": [
            ("Please write to {p}.", "I will write to {p}."),
            ("You can mail me at {p}.", "I will mail you at {p}."),
            ("My mail is {p}.", "I will write to {p}."),
            ("Send the invoice to {p}.", "The invoice goes to {p}."),
        ],
        "PHONE_NUMBER": [
            ("Please call me on {p}.", "I will call you on {p}."),
            ("My number is {p}.", "I will use the number {p}."),
            ("You reach me at {p}.", "I will reach you at {p}."),
        ],
        "PERSON": [
            ("I am {p}.", "Nice to meet you, {p}."),
            ("My name is {p}.", "Hello {p}."),
            ("This is {p} speaking.", "Hello {p}, how can I help you?"),
            ("Please tell {p}.", "I will tell {p}."),
        ],
        "LOCATION": [
            ("I live in {p}.", "You live in {p}."),
            ("Ship it to {p}.", "It will be shipped to {p}."),
            ("I am travelling to {p}.", "Have a good trip to {p}."),
        ],
        "ORGANIZATION": [
            ("I work for {p}.", "You work for {p}."),
            ("I have an offer from {p}.", "The offer is from {p}."),
            ("I am a customer of {p}.", "You are a customer of {p}."),
        ],
        "DATE_TIME": [
            ("Let us meet on {p}.", "The meeting is on {p}."),
            ("The deadline is {p}.", "The deadline {p} is noted."),
            ("I arrive on {p}.", "You arrive on {p}."),
        ],
        "URL": [("See {p} for details.", "The details are at {p}."), ("Open {p}.", "The page is {p}.")],
        "IP_ADDRESS": [
            ("The server at {p} does not answer.", "I will check the server at {p}."),
            ("Block {p}.", "I will block {p}."),
        ],
        "CREDIT_CARD": [("Charge {p}.", "I will charge {p}.")],
        "IBAN_CODE": [("Transfer the money to {p}.", "The money will be transferred to {p}.")],
    },
    "de": {
        "EMAIL_ADDRESS": [
            ("Bitte schreiben Sie an {p}.", "Ich schreibe an {p}."),
            ("Meine Mail ist {p}.", "Ich schreibe an {p}."),
            ("Senden Sie die Rechnung an {p}.", "Die Rechnung geht an {p}."),
        ],
        "PHONE_NUMBER": [("Bitte rufen Sie mich unter {p} an.", "Ich rufe Sie unter {p} an.")],
        "PERSON": [
            ("Ich heiße {p}.", "Guten Tag, {p}."),
            ("Mein Name ist {p}.", "Hallo {p}."),
            ("Ich bin {p}.", "Guten Tag, {p}."),
        ],
        "LOCATION": [
            ("Ich wohne in {p}.", "Sie wohnen in {p}."),
            ("Ich fahre nach {p}.", "Gute Reise nach {p}."),
        ],
        "ORGANIZATION": [("Ich arbeite bei {p}.", "Sie arbeiten bei {p}.")],
        "DATE_TIME": [("Wir treffen uns am {p}.", "Das Treffen ist am {p}.")],
    },
    "fr": {
        "EMAIL_ADDRESS": [
            ("Écrivez-moi à {p}.", "Je vous écrirai à {p}."),
            ("Envoyez la facture à {p}.", "La facture sera envoyée à {p}."),
        ],
        "PHONE_NUMBER": [("Appelez-moi au {p}.", "Je vous appellerai au {p}.")],
        "PERSON": [("Je m'appelle {p}.", "Bonjour {p}."), ("Je suis {p}.", "Bonjour {p}.")],
        "LOCATION": [("J'habite à {p}.", "Vous habitez à {p}.")],
        "ORGANIZATION": [("Je travaille chez {p}.", "Vous travaillez chez {p}.")],
        "DATE_TIME": [("Nous nous voyons le {p}.", "Le rendez-vous est le {p}.")],
    },
    "es": {
        "EMAIL_ADDRESS": [
            ("Escríbame a {p}.", "Le escribiré a {p}."),
            ("Envíe la factura a {p}.", "La factura se enviará a {p}."),
        ],
        "PHONE_NUMBER": [("Llámeme al {p}.", "Le llamaré al {p}.")],
        "PERSON": [("Me llamo {p}.", "Hola {p}."), ("Soy {p}.", "Hola {p}.")],
        "LOCATION": [("Vivo en {p}.", "Usted vive en {p}.")],
        "ORGANIZATION": [("Trabajo en {p}.", "Usted trabaja en {p}.")],
        "DATE_TIME": [("Nos vemos el {p}.", "La reunión es el {p}.")],
    },
    "it": {
        "EMAIL_ADDRESS": [
            ("Mi scriva a {p}.", "Le scriverò a {p}."),
            ("Invii la fattura a {p}.", "La fattura sarà inviata a {p}."),
        ],
        "PHONE_NUMBER": [("Mi chiami al {p}.", "La chiamerò al {p}.")],
        "PERSON": [("Mi chiamo {p}.", "Buongiorno {p}."), ("Sono {p}.", "Buongiorno {p}.")],
        "LOCATION": [("Abito a {p}.", "Lei abita a {p}.")],
        "ORGANIZATION": [("Lavoro per {p}.", "Lei lavora per {p}.")],
        "DATE_TIME": [("Ci vediamo il {p}.", "L'incontro è il {p}.")],
    },
    "pt": {
        "EMAIL_ADDRESS": [
            ("Escreva para {p}.", "Vou escrever para {p}."),
            ("Envie a fatura para {p}.", "A fatura será enviada para {p}."),
        ],
        "PHONE_NUMBER": [("Ligue para {p}.", "Vou ligar para {p}.")],
        "PERSON": [("Eu me chamo {p}.", "Olá {p}."), ("Sou {p}.", "Olá {p}.")],
        "LOCATION": [("Moro em {p}.", "Você mora em {p}.")],
        "ORGANIZATION": [("Trabalho na {p}.", "Você trabalha na {p}.")],
        "DATE_TIME": [("Vamos nos ver em {p}.", "A reunião é em {p}.")],
    },
}

REPEAT: dict[str, list[str]] = {
    "en": [
        "Repeat: {x}",
        "Repeat exactly: {x}",
        "Say this again: {x}",
        "Copy this text: {x}",
        "Repeat the following text word for word.\n{x}",
        "Echo {x}",
        "Write back exactly this: {x}",
    ],
    "de": ["Wiederhole: {x}", "Wiederhole genau: {x}", "Schreibe genau das: {x}", "Sag noch einmal: {x}"],
    "fr": ["Répète : {x}", "Répète exactement : {x}", "Recopie ce texte : {x}", "Redis : {x}"],
    "es": ["Repite: {x}", "Repite exactamente: {x}", "Copia este texto: {x}", "Di otra vez: {x}"],
    "it": ["Ripeti: {x}", "Ripeti esattamente: {x}", "Copia questo testo: {x}", "Di' ancora: {x}"],
    "pt": ["Repita: {x}", "Repita exatamente: {x}", "Copie este texto: {x}", "Diga de novo: {x}"],
}

# Any text with placeholders, then what is wanted; the answer lists them in order.
NOTE: dict[str, list[str]] = {
    "en": ["I have noted {x}.", "Noted: {x}.", "Thank you for {x}."],
    "de": ["Ich habe {x} notiert.", "Notiert: {x}."],
    "fr": ["J'ai noté {x}.", "Noté : {x}."],
    "es": ["He anotado {x}.", "Anotado: {x}."],
    "it": ["Ho annotato {x}.", "Annotato: {x}."],
    "pt": ["Anotei {x}.", "Anotado: {x}."],
}

LIST: dict[str, list[str]] = {
    "en": [
        "List the personal data in this text: {x}",
        "Which names and numbers are in this text?\n{x}",
        "{x}\nWhat did I tell you?",
        "Extract all contact data: {x}",
    ],
    "de": ["Nenne die persönlichen Daten in diesem Text: {x}", "{x}\nWelche Angaben habe ich gemacht?"],
    "fr": ["Donne les données personnelles de ce texte : {x}", "{x}\nQu'ai-je indiqué ?"],
    "es": ["Indica los datos personales de este texto: {x}", "{x}\n¿Qué datos he dado?"],
    "it": ["Elenca i dati personali in questo testo: {x}", "{x}\nQuali dati ho dato?"],
    "pt": ["Liste os dados pessoais neste texto: {x}", "{x}\nQuais dados eu dei?"],
}

# (request, answer) for a letter to a person: {a} the person, {b} another placeholder or word.
LETTER: dict[str, list[tuple[str, str]]] = {
    "en": [
        (
            "Write a short e-mail to {a} about {b}.",
            "Dear {a},\n\nI am writing about {b}. Please let me know what you think.\n\nKind regards",
        ),
        (
            "Invite {a} to a meeting about {b}.",
            "Dear {a},\n\nI would like to invite you to a meeting about {b}.\n\nBest regards",
        ),
        ("Thank {a} for {b}.", "Dear {a},\n\nthank you very much for {b}.\n\nBest regards"),
        (
            "Write to {a} that {b} is late.",
            "Dear {a},\n\nI am sorry to tell you that {b} is late.\n\nKind regards",
        ),
    ],
    "de": [
        (
            "Schreibe eine kurze E-Mail an {a} über {b}.",
            "Guten Tag {a},\n\nich schreibe Ihnen wegen {b}.\n\nMit freundlichen Grüßen",
        ),
        ("Danke {a} für {b}.", "Guten Tag {a},\n\nvielen Dank für {b}.\n\nMit freundlichen Grüßen"),
    ],
    "fr": [
        (
            "Écris un court message à {a} au sujet de {b}.",
            "Bonjour {a},\n\nje vous écris au sujet de {b}.\n\nCordialement",
        ),
        ("Remercie {a} pour {b}.", "Bonjour {a},\n\nmerci beaucoup pour {b}.\n\nCordialement"),
    ],
    "es": [
        ("Escribe un mensaje corto a {a} sobre {b}.", "Hola {a}:\n\nle escribo sobre {b}.\n\nSaludos"),
        ("Da las gracias a {a} por {b}.", "Hola {a}:\n\nmuchas gracias por {b}.\n\nSaludos"),
    ],
    "it": [
        (
            "Scrivi un breve messaggio a {a} su {b}.",
            "Buongiorno {a},\n\nle scrivo su {b}.\n\nCordiali saluti",
        ),
        ("Ringrazia {a} per {b}.", "Buongiorno {a},\n\ngrazie mille per {b}.\n\nCordiali saluti"),
    ],
    "pt": [
        (
            "Escreva uma mensagem curta para {a} sobre {b}.",
            "Olá {a},\n\nescrevo sobre {b}.\n\nAtenciosamente",
        ),
        ("Agradeça a {a} por {b}.", "Olá {a},\n\nmuito obrigado por {b}.\n\nAtenciosamente"),
    ],
}
